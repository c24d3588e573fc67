"""HDF5 files, for `reading_server`: plain arrays of numbers that lie in the file itself, and nothing else."""

from typing import Any

import h5py
import numpy as np

from mtorl.datasets.importers.reading_server import RefusedError, Reply, Request, values_reply

ITEMS, DEPTH = 100_000, 4
"""Most entries of one group, and groups within groups."""


class Hdf5File:
    """An open file.

    Args:
        path: Its path.
    """

    def __init__(self, path: str) -> None:
        self._groups: dict[str, Any] = {"": h5py.File(path, "r", locking=False)}

    def reply(self, request: Request) -> Reply:
        """What a group holds, or rows of an array."""
        item = found_at(self._groups, request["name"])
        if request["what"] == "group":
            return {"shapes": listing(item), "attributes": attributes(item)}, b""
        return values_reply(values(item, request["start"], request["stop"]))

    def close(self) -> None:
        """Closes it."""
        self._groups[""].close()


open_file = Hdf5File


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
    return item[start:stop] if item.shape else item[()]


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
