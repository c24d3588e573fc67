"""Files that our own exports made in the flat layout (`datasets.flat`), whatever kind of file holds the arrays.

An importer of a kind of file opens it as a `FlatSource`; with `mtorl/manifest` in it, `contents` and `episodes` do the
rest, and give the data set again that was exported.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.enclosed import ORIGIN, REMEDY, Part, contents_of_parts, read_part
from mtorl.datasets.episode import Episode
from mtorl.datasets.flat import INDEX, KEYS, NUMBER, WIDE, episode_of
from mtorl.datasets.importers.base import Contents, check_finite, state_of
from mtorl.datasets.importers.raw_episodes import cleaned
from mtorl.schema import Document, check

BLOCK = 1 << 14
"""Rows that are read at once."""
LONGEST = 1 << 28
"""Bytes of one episode, at most: it is held in memory."""


class FlatSource(Protocol):
    """An open file with arrays.

    Attributes:
        where: Names it in messages.
    """

    where: str

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of its arrays, by key."""
        ...

    def manifest(self) -> bytes | None:
        """What stands in `mtorl/manifest`; None: it is not there."""
        ...

    def rows(self, key: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of an array; of each one they are asked for in their order, each once."""
        ...


Open = Callable[[Path], AbstractContextManager[FlatSource]]
"""Opens a file."""


def are_exported(open_: Open, paths: Sequence[Path]) -> bool:
    """Whether the files are of our own exports.

    Raises:
        InputError: Some are and some are not.
    """
    found = [_known(open_, path) is not None for path in paths]
    if any(found) and not all(found):
        raise InputError(
            f"{paths[found.index(True)]} was exported by mtorl, {paths[found.index(False)]} was not. Import them "
            "apart, and join them with `mtorl merge`."
        )
    return any(found)


def contents(open_: Open, paths: Sequence[Path]) -> Contents:
    """What was exported, before its episodes are read.

    Raises:
        InputError: A file is malformed, or is of another data set than the others.
    """
    known = [_exported(open_, path) for path in paths]
    for path, found in zip(paths, known, strict=True):
        if found.dimensions != known[0].dimensions:
            raise InputError(
                f"{path} has the dimensions {found.dimensions}, {paths[0]} {known[0].dimensions}. {REMEDY}"
            )
    parts = [(str(path), found.head, found.part) for path, found in zip(paths, known, strict=True)]
    return contents_of_parts(parts, known[0].dimensions)


def episodes(open_: Open, paths: Sequence[Path]) -> Iterator[Episode]:
    """The episodes of all files, in the order in which they stood in the data set; a file is opened when it is due.

    Raises:
        InputError: A file is malformed.
    """
    due = [(_exported(open_, path).part.first, place) for place, path in enumerate(paths)]
    streams = [_numbered(open_, path) for path in paths]
    waiting: dict[int, Episode] = {}
    heapq.heapify(due)
    while due:
        _, place = heapq.heappop(due)
        if place in waiting:
            yield waiting.pop(place)
        following = next(streams[place], None)
        if following is not None:
            number, waiting[place] = following
            heapq.heappush(due, (number, place))


@dataclass(frozen=True)
class _Known:
    """What a file says of itself, looked through, and O and A."""

    head: Document
    part: Part
    dimensions: tuple[int, int]


def _exported(open_: Open, path: Path) -> _Known:
    found = _known(open_, path)
    if found is None:
        raise InputError(f"{path} is no export of mtorl; expected a manifest in it. {REMEDY}")
    return found


def _known(open_: Open, path: Path) -> _Known | None:
    """What is known of a file; None: it is of nobody's export."""
    return _read(open_, path, *state_of(path))


@lru_cache(256)
def _read(open_: Open, path: Path, *state: int) -> _Known | None:
    """Opens a file once for as long as it does not change: that may mean to start a process."""
    with open_(path) as source:
        text = source.manifest()
        return None if text is None else _Known(*read_part(text, source.where), _dimensions(source))


def _dimensions(source: FlatSource) -> tuple[int, int]:
    """O and A; raises InputError if an array is missing or has another shape than the others."""
    missing = [key for key in KEYS if key not in source.shapes]
    if missing:
        raise InputError(f"{source.where} lacks the arrays {missing}. {REMEDY}")
    steps = source.shapes[NUMBER][:1]
    for key in KEYS:
        shape = source.shapes[key]
        if shape[:1] != steps or len(shape) != (2 if key in WIDE else 1):
            raise InputError(f"{source.where}: {key} has the shape {shape}; {NUMBER} counts {steps}. {REMEDY}")
    observations, following, actions = (source.shapes[key][1] for key in WIDE)
    if observations != following:
        raise InputError(
            f"{source.where}: next_observations have {following} numbers each, observations {observations}. {REMEDY}"
        )
    return observations, actions


def _numbered(open_: Open, path: Path) -> Iterator[tuple[int, Episode]]:
    """The episodes of one file, with their numbers in the data set."""
    with open_(path) as source:
        _dimensions(source)
        task, (steps,) = _exported(open_, path).part.task, source.shapes[NUMBER]
        rest: dict[str, NDArray[Any]] = {}
        for start in range(0, steps, BLOCK):
            stop = min(start + BLOCK, steps)
            block = {key: source.rows(key, start, stop) for key in KEYS}
            check_finite(block[NUMBER], NUMBER, f"{source.where}, rows from {start}")
            if rest:
                block = {key: np.concatenate([rest[key], block[key]]) for key in KEYS}
            ends = [*(np.flatnonzero(np.diff(block[NUMBER])) + 1), *([len(block[NUMBER])] if stop == steps else [])]
            for begin, end in zip([0, *ends], ends, strict=False):
                rows = {key: values[begin:end] for key, values in block.items()}
                number = int(rows[NUMBER][0])
                where = f"{source.where}, episode {number} of its data set"
                check_finite(rows["next_observations"], "next observations", where)
                check({name: rows[f"infos/{name}"][0].item() for name in INDEX}, ORIGIN, where, REMEDY)
                yield number, cleaned(episode_of(rows, task), where, clip=False)
            rest = {key: values[ends[-1] if ends else 0 :] for key, values in block.items()}
            if sum(values.nbytes for values in rest.values()) > LONGEST:
                raise InputError(f"{source.where}: an episode has more than {LONGEST} bytes. {REMEDY}")
