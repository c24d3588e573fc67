"""Reads files of strangers, one after the other, in a process of its own, which `reading_process.Reader` starts.

    python -I reading_server.py hdf5_server

The word names a module beside this one, with `open_file(path)` that gives an `OpenFile`. HDF5 and Parquet come with
large libraries; whoever made a file can make them fail. What fails here takes nobody with it, cannot write and has
little memory. A request is a line of JSON on standard input. The answer is a line of JSON, and for values their bytes.

Neither this file nor those modules import anything else of ours, so that they start quickly.
"""

import importlib.util
import json
import os
import resource
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

MEMORY = 1 << 30
"""Bytes that it may use beyond what it has when it starts."""
SECONDS, PER_MEGABYTE = 60, 1
"""Of the processor for a file, and more for each megabyte of it: it ends also when nobody waits for it any more."""

Request = dict[str, Any]
Reply = tuple[dict[str, Any], bytes | memoryview]
"""The answer to a request, and the bytes that follow it."""


class RefusedError(Exception):
    """The file holds something that is not read; the message names it."""


class OpenFile(Protocol):
    """An open file of one format."""

    def reply(self, request: Request) -> Reply:
        """Answers a request; whatever it raises is the answer as well."""
        ...

    def close(self) -> None:
        """Closes the file."""
        ...


def values_reply(values: Any) -> Reply:
    """An array as the answer to a request for rows."""
    values = np.ascontiguousarray(values)
    header = {"shape": list(values.shape), "dtype": values.dtype.str, "bytes": values.nbytes}
    return header, values.reshape(-1).view(np.uint8).data if values.size else b""


def limit() -> None:
    """No more memory than stated, no files written, no core dumps."""
    with open("/proc/self/statm") if sys.platform == "linux" else open("/dev/null") as file:  # noqa: PTH123
        pages = (file.read().split() or ["0"])[0]
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (int(pages) * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_time(size: int) -> None:
    """No more time of the processor than a file of that many bytes may take."""
    _, hardest = resource.getrlimit(resource.RLIMIT_CPU)
    most = int(time.process_time()) + SECONDS + PER_MEGABYTE * (size >> 20)
    resource.setrlimit(
        resource.RLIMIT_CPU, (most if hardest == resource.RLIM_INFINITY else min(most, hardest), hardest)
    )


def serve(module: ModuleType) -> None:
    """Serves requests for files of one format until there are no more."""
    limit()
    out = sys.stdout.buffer
    file: OpenFile | None = None
    for line in sys.stdin:
        found: Reply = {}, b""
        try:
            request = json.loads(line)
            if request["what"] != "open":
                if file is None:
                    raise RefusedError("no file is open")
                found = file.reply(request)
            else:
                if file is not None:
                    file.close()
                file = None
                limit_time(os.stat(request["name"]).st_size)  # noqa: PTH116
                file = module.open_file(request["name"])
        except RefusedError as refusal:
            found = {"error": str(refusal)[:500]}, b""
        except Exception as error:  # whatever a damaged file makes of the library that reads it
            found = {"error": f"{type(error).__name__}: {error}"[:500]}, b""
        header, content = found
        out.write(json.dumps(header).encode() + b"\n")
        out.write(content)
        out.flush()


def load(name: str) -> ModuleType:
    """The module of a format; it finds this one under the name by which everybody imports it."""
    sys.modules["mtorl.datasets.importers.reading_server"] = sys.modules[__name__]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    serve(load(sys.argv[1]))
