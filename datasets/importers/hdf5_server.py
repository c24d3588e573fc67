"""Reads HDF5 files of strangers, one after the other, in a process of its own, which `Hdf5Reader` starts.

HDF5 is a large library for a large format; whoever made a file can make it fail. What fails here takes nobody with it,
cannot write and has little memory. A request is a line of JSON on standard input. The answer is a line of JSON, and for
values their bytes. Only plain arrays of numbers that lie in the file itself are read.

This file imports nothing of ours, so that it starts quickly.
"""

import json
import resource
import sys
from typing import Any

import h5py
import numpy as np

MEMORY = 1 << 30
"""Bytes that it may use beyond what it has when it starts."""
ITEMS, DEPTH = 100_000, 4
"""Most entries of one group, and groups within groups."""


class RefusedError(Exception):
    """The file holds something that is not read; the message names it."""


def limit() -> None:
    """No more memory than stated, no files written, no core dumps."""
    with open("/proc/self/statm") if sys.platform == "linux" else open("/dev/null") as file:  # noqa: PTH123
        pages = (file.read().split() or ["0"])[0]
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (int(pages) * resource.getpagesize() + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def entry(group: Any, name: str) -> Any:
    """What a group holds under a name, if it lies in the file itself."""
    link = group.get(name, getlink=True)
    if link is None:
        raise RefusedError(f"there is no {group.name.rstrip('/')}/{name}")
    if not isinstance(link, h5py.HardLink):
        raise RefusedError(f"{group.name}/{name} is a {type(link).__name__} to something else")
    return group[name]


def listing(group: Any, prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Shapes and dtypes of all arrays in a group and the groups in it."""
    if len(group) > ITEMS or depth > DEPTH:
        raise RefusedError(f"{group.name} holds {len(group)} entries at depth {depth}")
    found: dict[str, Any] = {}
    for name in group:
        inner = entry(group, name)
        if isinstance(inner, h5py.Group):
            found |= listing(inner, f"{prefix}{name}/", depth + 1)
        elif isinstance(inner, h5py.Dataset) and inner.shape is not None:
            found[prefix + name] = [list(inner.shape), inner.dtype.str]
        if len(found) > ITEMS:
            raise RefusedError(f"{group.name} holds more than {ITEMS} arrays")
    return found


def attributes(item: Any) -> dict[str, Any]:
    """Numbers and texts among the attributes of a group."""
    found: dict[str, Any] = {}
    for name in item.attrs:
        kind = item.attrs.get_id(name)
        if kind.shape != () or not (kind.dtype.kind in "biufS" or h5py.check_string_dtype(kind.dtype)):
            continue
        value = item.attrs[name]
        value = value.item() if isinstance(value, np.generic) else value
        found[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def values(item: Any, start: int, stop: int) -> Any:
    """Rows of an array of numbers."""
    if not isinstance(item, h5py.Dataset):
        raise RefusedError(f"{item.name} is no array")
    if item.is_virtual:
        raise RefusedError(f"{item.name} is a virtual data set: it is put together from other files")
    if item.external:
        raise RefusedError(f"{item.name} lies in another file")
    if item.dtype.kind not in "biuf" or item.dtype.itemsize > 8:
        raise RefusedError(f"{item.name} holds {item.dtype}, no plain numbers")
    return np.ascontiguousarray(item[start:stop] if item.shape else item[()])


def found_at(groups: dict[str, Any], name: str) -> Any:
    """What stands at a path; the group that it is in is kept open, because its neighbours are asked for next."""
    if name in groups:
        return groups[name]
    above, _, last = name.rpartition("/")
    group = found_at(groups, above)
    if not isinstance(group, h5py.Group):
        raise RefusedError(f"there is no {name}")
    if above not in groups:
        root = groups[""]
        groups.clear()
        groups |= {"": root, above: group}
    return entry(group, last)


def opened(groups: dict[str, Any], request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Closes the file that was open, and opens another."""
    if groups:
        groups[""].close()
        groups.clear()
    groups[""] = h5py.File(request["name"], "r", locking=False)
    return {}, b""


def reply(groups: dict[str, Any], request: dict[str, Any]) -> tuple[dict[str, Any], bytes | memoryview]:
    """The answer to one request, and the bytes that follow it."""
    item = found_at(groups, request["name"])
    if request["what"] == "group":
        return {"shapes": listing(item), "attributes": attributes(item)}, b""
    found = values(item, request["start"], request["stop"])
    return {"shape": list(found.shape), "dtype": found.dtype.str, "bytes": found.nbytes}, found.reshape(-1).view(
        np.uint8
    ).data if found.size else b""


def main() -> None:
    """Serves requests until there are no more."""
    limit()
    out = sys.stdout.buffer
    groups: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            request = json.loads(line)
            header, content = opened(groups, request) if request["what"] == "open" else reply(groups, request)
        except RefusedError as refusal:
            header, content = {"error": str(refusal)[:500]}, b""
        except (OSError, RuntimeError, ValueError, KeyError, TypeError, MemoryError) as error:
            header, content = {"error": f"{type(error).__name__}: {error}"[:500]}, b""
        out.write(json.dumps(header).encode() + b"\n")
        out.write(content)
        out.flush()


if __name__ == "__main__":
    main()
