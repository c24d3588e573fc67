"""Files of strangers, read by another process: it may fail, hang or be killed, and that is an error like any other."""

import atexit
import contextlib
import json
import os
import re
import selectors
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.files import regular
from mtorl.schema import Document, Integer, ListOf, Record, Text, check

LARGEST = 1 << 28
"""Bytes of one reading, at most."""
GROWTH, SMALL = 64, 1 << 24
"""What is read in all may be that many times the size of the file (compression), or so many bytes if it is small."""
SECONDS = 10.0
"""For one answer."""
LINE = 1 << 26
"""Bytes of an answer without values, at most."""
ROWS = Record({"shape": ListOf(Integer(0)), "dtype": Text(), "bytes": Integer(0, LARGEST)})
SERVER = Path(__file__).with_name("reading_server.py")
QUIET = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "HDF5_PLUGIN_PATH": os.devnull,
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "ARROW_IO_THREADS": "1",
}
"""What keeps the libraries from threads, from memory that they do not need, and from code beside the file."""

_IDLE: dict[str, tuple[int, "subprocess.Popen[bytes]"]] = {}
"""For each format a process that waits for the next file, and whose child it is."""


class Reader:
    """An open file. Formats are subclasses.

    Values in other files, and whatever is no number, are refused by name. The process that reads takes the next file of
    its format as well, because to start it takes longer than most files; after any error it is ended.

    Args:
        path: The file.

    Attributes:
        server: Module beside `reading_server` that reads the format.
        remedy: What can be done about a damaged file, a sentence.

    Raises:
        InputError: It cannot be opened.
    """

    server: ClassVar[str]
    remedy: ClassVar[str]

    def __init__(self, path: Path) -> None:
        self.path = regular(path, "the file")
        self._left = SMALL + GROWTH * path.stat().st_size if path.exists() else 0
        self._process = _idle(self.server) or _started(self.server)
        self._pipe = self._process.stdout.fileno() if self._process.stdout else -1
        self._buffer = bytearray()
        self._clean = True  # nothing failed, and nothing is being waited for
        try:
            self._ask(str(path.resolve()), "open", time.monotonic() + SECONDS * 3)  # a busy machine starts it slowly
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, or keeps it for the next file if nothing was wrong with this one."""
        if self._clean and not self._buffer and self.server not in _IDLE:
            _IDLE[self.server] = os.getpid(), self._process
        else:
            _end(self._process)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows of an array of numbers.

        Args:
            name: From the root of the file.
            start: First row.
            stop: The row after the last one; None: all that there are.

        Raises:
            InputError: There is no such array, it holds something else than numbers, or too many at once.
        """
        until = time.monotonic() + SECONDS
        found = self._ask(name, "rows", until, start, stop)
        check(found, ROWS, f"{self.path}: {name}", f"Expected at most {LARGEST} bytes at once. {self.remedy}")
        if not re.fullmatch(r"[<>|][biuf][1248]", found["dtype"]):
            raise self._failed(f"{name} holds {found['dtype']}, no plain numbers")
        dtype = np.dtype(found["dtype"])
        if dtype.itemsize * int(np.prod(found["shape"], dtype=object)) != found["bytes"]:
            raise self._failed(f"{name} has no shape that fits its values")
        self._left -= found["bytes"]
        if self._left < 0:
            raise self._failed(f"it unpacks to more than {GROWTH} times its size")
        clean, self._clean = self._clean, False
        content = self._exactly(found["bytes"], until)
        self._clean = clean
        return np.frombuffer(content, dtype).reshape(found["shape"])

    def ask(self, name: str, what: str) -> Document:
        """The answer to a request, as the format defines them.

        Args:
            name: What it is about.
            what: The request.

        Raises:
            InputError: It cannot be given.
        """
        return self._ask(name, what, time.monotonic() + SECONDS)

    def _ask(self, name: str, what: str, until: float, start: int = 0, stop: int | None = None) -> Document:
        request = json.dumps({"name": name, "what": what, "start": start, "stop": stop})
        clean, self._clean = self._clean, False
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._failed("the process that reads it died") from None
        found = self._line(until)
        self._clean = clean
        return found

    def _line(self, until: float) -> Document:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > LINE:
                raise self._failed("it lists too much")
            self._more(until)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            found: Document = json.loads(line)
        except (ValueError, RecursionError):
            raise self._failed("the process that reads it answers nonsense") from None
        if "error" in found:
            raise self._failed(" ".join(str(found["error"]).split()))
        return found

    def _exactly(self, count: int, until: float) -> bytearray:
        while len(self._buffer) < count:
            self._more(until)
        found, self._buffer = self._buffer[:count], self._buffer[count:]
        return found

    def _more(self, until: float) -> None:
        """Waits for bytes from the process."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._pipe, selectors.EVENT_READ)
            if not selector.select(max(until - time.monotonic(), 0)):
                raise self._failed(f"it took more than {SECONDS:.0f} s to read")
        block = os.read(self._pipe, 1 << 20)
        if not block:
            raise self._failed("the process that reads it died, of its memory or of a damaged file")
        self._buffer += block

    def _failed(self, why: str) -> InputError:
        self._clean = False
        return InputError(f"{self.path} cannot be read: {why}. {self.remedy}")


def _idle(server: str) -> "subprocess.Popen[bytes] | None":
    """The process that waits, if there is one; after a fork it is the parent's."""
    owner, process = _IDLE.pop(server, (0, None))
    if process is None or owner != os.getpid():
        return None
    if process.poll() is None:
        return process
    _end(process)
    return None


def _started(server: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", str(SERVER), server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | QUIET,
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(OSError):  # what was not sent is of no use
            pipe.close()
    process.wait()


@atexit.register
def _end_idle() -> None:
    for server in list(_IDLE):
        process = _idle(server)
        if process:
            _end(process)
