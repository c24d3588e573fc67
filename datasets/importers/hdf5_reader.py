"""HDF5 files of strangers, read for plain arrays of numbers and nothing else, by a process of their own."""

import atexit
import contextlib
import json
import os
import re
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.files import regular
from mtorl.schema import Document, Integer, ListOf, MappingOf, Plain, Record, Text, check

LARGEST = 1 << 28
"""Bytes of one reading, at most."""
GROWTH, SMALL = 64, 1 << 24
"""What is read in all may be that many times the size of the file (compression), or so many bytes if it is small."""
SECONDS = 10.0
"""For one answer."""
LINE = 1 << 26
"""Bytes of an answer without values, at most."""
GROUP = Record({"shapes": MappingOf(ListOf(Plain(), 2)), "attributes": MappingOf(Plain())})
ROWS = Record({"shape": ListOf(Integer(0)), "dtype": Text(), "bytes": Integer(0, LARGEST)})
REMEDY = "Download it again, or write it again with h5py."


_IDLE: list[tuple[int, "subprocess.Popen[bytes]"]] = []
"""A process that waits for the next file, and whose child it is."""


@dataclass(frozen=True)
class Group:
    """What a group of a file holds.

    Attributes:
        shapes: Of all arrays in it and in its groups, by their names from there.
        dtypes: The same, numpy's words for them.
        attributes: Those that are a number or a text.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    attributes: dict[str, Any]


class Hdf5Reader:
    """An open file.

    Links, virtual data sets, values in other files, and whatever is no number are refused by name. The process that
    reads may fail, hang or be killed: that is an error like any other. It reads the next file as well, because to start
    it takes longer than most files; after any error it is ended.

    Args:
        path: The file.

    Raises:
        InputError: It cannot be opened as HDF5.
    """

    def __init__(self, path: Path) -> None:
        self.path = regular(path, "the file")
        self._left = SMALL + GROWTH * path.stat().st_size if path.exists() else 0
        self._process = _idle() or _started()
        self._pipe = self._process.stdout.fileno() if self._process.stdout else -1
        self._buffer = bytearray()
        self._clean = True  # nothing failed, and nothing is being waited for
        try:
            self._ask(str(path.resolve()), "open", time.monotonic() + SECONDS * 3)  # a busy machine starts it slowly
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Hdf5Reader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process, or keeps it for the next file if nothing was wrong with this one."""
        if self._clean and not self._buffer and not _IDLE:
            _IDLE.append((os.getpid(), self._process))
        else:
            _end(self._process)

    def group(self, name: str) -> Group:
        """What a group holds.

        Args:
            name: From the root of the file; "" is the root.

        Raises:
            InputError: It is not there, or cannot be read.
        """
        found = self._ask(name, "group", time.monotonic() + SECONDS)
        check(found, GROUP, f"{self.path}: {name}", REMEDY)
        entries = {key: (tuple(shape), dtype) for key, (shape, dtype) in found["shapes"].items()}
        return Group(
            {key: shape for key, (shape, _) in entries.items()},
            {key: dtype for key, (_, dtype) in entries.items()},
            found["attributes"],
        )

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
        check(found, ROWS, f"{self.path}: {name}", f"Expected at most {LARGEST} bytes at once. {REMEDY}")
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
        return InputError(f"{self.path} cannot be read: {why}. {REMEDY}")


def _idle() -> "subprocess.Popen[bytes] | None":
    """The process that waits, if there is one; after a fork it is the parent's."""
    while _IDLE:
        owner, process = _IDLE.pop()
        if owner == os.getpid():
            if process.poll() is None:
                return process
            _end(process)
    return None


def _started() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-I", str(Path(__file__).with_name("hdf5_server.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PATH": os.devnull},
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    for pipe in filter(None, (process.stdin, process.stdout)):
        with contextlib.suppress(OSError):  # what was not sent is of no use
            pipe.close()
    process.wait()


@atexit.register
def _end_idle() -> None:
    process = _idle()
    if process:
        _end(process)
