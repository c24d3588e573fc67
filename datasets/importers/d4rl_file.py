"""One file in the layout of D4RL: looked through first, then read a few episodes at a time."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.enclosed import KEY
from mtorl.datasets.episode import Episode, as_flags
from mtorl.datasets.importers.base import state_of
from mtorl.datasets.importers.hdf5_reader import Group, Hdf5Reader
from mtorl.datasets.importers.raw_episodes import cleaned

COLUMNS = ("observations", "actions", "rewards")
FLAGS = ("terminals", "timeouts")
NEXT = "next_observations"
BLOCK = 1 << 24
"""Bytes of all arrays that are read at once, unless one episode has more."""
LONGEST = 1 << 28
"""Bytes of one episode, at most: it is held in memory."""
WIDEST = 1 << 18
"""Numbers of one observation or action, at most: statistics of each are kept."""
FLAG_ROWS = 1 << 20
"""Flags that are read at once."""


@dataclass(frozen=True)
class Survey:
    """What a file holds, as far as it is known before its episodes are read.

    Attributes:
        exported: It is an export of ours, and nothing else is known here.
        dimensions: O and A.
        stops: int64 `[E]`, the step after the last one of each episode.
        cut: Its episodes were cut after so many steps, because it has no timeouts; None: it has.
        unfinished: Steps of a last episode without an end.
        timeouts: Whether it says where episodes were cut off.
        successors: Whether it has next observations.
        unused: Names of its other arrays.
        row: Bytes of a step.
    """

    exported: bool
    dimensions: tuple[int, int] = (0, 0)
    stops: NDArray[np.int64] | None = None
    cut: int | None = None
    unfinished: int = 0
    timeouts: bool = False
    successors: bool = False
    unused: tuple[str, ...] = ()
    row: int = 0


def survey(path: Path, horizon: int | None) -> Survey:
    """Looks a file through: once, as long as it does not change.

    Args:
        path: The file.
        horizon: Steps after which episodes end where the file does not say it; None: unknown.

    Raises:
        InputError: It cannot be read, or its arrays do not belong together.
    """
    return _survey(path, horizon, *state_of(path))


@lru_cache(256)
def _survey(path: Path, horizon: int | None, *state: int) -> Survey:
    with Hdf5Reader(path) as file:
        root = file.group("")
        if KEY in root.attributes:
            return Survey(True)
        steps = _check_shapes(root, str(path))
        flags = [name for name in FLAGS if name in root.shapes]
        cut = None if "timeouts" in root.shapes else horizon
        if not flags and cut is None:
            raise InputError(
                f"{path} has neither terminals nor timeouts: nothing says where episodes end. Give the steps of an "
                "episode with --horizon."
            )
        ends = [
            block + np.flatnonzero(np.any([_flags(file, name, block, steps) for name in flags], axis=0))
            for block in (range(0, steps, FLAG_ROWS) if flags else ())
        ]
        stops = np.concatenate([np.zeros(0, np.int64), *ends]) + 1
        finished = int(stops[-1]) if len(stops) else 0
        stops = _cut(np.append(stops, steps) if finished < steps else stops, cut)
        last = int(np.diff(stops, prepend=0)[-1])
        found = Survey(
            False,
            (root.shapes["observations"][1], root.shapes["actions"][1]),
            stops,
            cut,
            last if finished < steps and last != cut else 0,
            "timeouts" in root.shapes,
            NEXT in root.shapes,
            tuple(sorted({*root.shapes} - {*COLUMNS, *FLAGS, NEXT})),
            sum(_width(root, name) for name in (*COLUMNS, *FLAGS, NEXT) if name in root.shapes),
        )
    longest = int(np.diff(stops, prepend=0).max())
    if longest * found.row > LONGEST:
        raise InputError(
            f"{path}: an episode has {longest} steps of {found.row} bytes; expected at most {LONGEST} bytes. If the "
            "file does not say where episodes end, give their steps with --horizon."
        )
    return found


def _check_shapes(root: Group, where: str) -> int:
    """How many steps there are; raises InputError if an array is missing or has another shape than the others."""
    missing = [name for name in COLUMNS if name not in root.shapes]
    if missing:
        raise InputError(
            f"{where} has no arrays {missing}; it has {sorted(root.shapes)[:20]}. Expected D4RL's names; arrays under "
            "other names are read from .npz files, with `mtorl import npz --keys`."
        )
    steps = root.shapes["rewards"][0] if root.shapes["rewards"] else 0
    if not steps:
        raise InputError(f"{where} has rewards of the shape {root.shapes['rewards']}; expected one for each step.")
    for name in ("observations", "actions", *((NEXT,) if NEXT in root.shapes else ())):
        shape, dtype = root.shapes[name], root.dtypes[name]
        if len(shape) > 2:
            raise InputError(
                f"{where}: {name} have the shape {shape}; each step is to be one row of numbers. Images and the like "
                "are not read: agents here see states."
            )
        if len(shape) != 2 or shape[0] != steps or not 0 < shape[1] <= WIDEST:
            chosen = " Actions that are chosen from a list are not read." if dtype[1:2] in "iu" else ""
            raise InputError(
                f"{where}: {name} have the shape {shape}; expected ({steps}, 1 to {WIDEST}), a row of numbers for each "
                f"of {steps} rewards.{chosen}"
            )
    if NEXT in root.shapes and root.shapes[NEXT] != root.shapes["observations"]:
        raise InputError(
            f"{where}: {NEXT} have the shape {root.shapes[NEXT]}, observations {root.shapes['observations']}; "
            "expected the same."
        )
    for name in ("rewards", *FLAGS):
        if root.shapes.get(name, (steps,)) not in ((steps,), (steps, 1)):
            raise InputError(f"{where}: {name} have the shape {root.shapes[name]}; expected ({steps},), one each.")
    for name in (*COLUMNS, *FLAGS, NEXT):
        if name in root.dtypes and not re.fullmatch(r"[<>|][biuf][1248]", root.dtypes[name]):
            raise InputError(f"{where}: {name} are of the type {root.dtypes[name]}; expected plain real numbers.")
    return steps


def _width(root: Group, name: str) -> int:
    return int(root.dtypes[name][2:]) * int(np.prod(root.shapes[name][1:], dtype=object))


def _flags(file: Hdf5Reader, name: str, start: int, steps: int) -> NDArray[np.bool_]:
    values = file.read(name, start, min(start + FLAG_ROWS, steps))
    return as_flags(values.reshape(-1), f"{name} of {file.path}")


def _cut(stops: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """The same ends, and one more after each `most` steps since the last."""
    lengths = np.diff(stops, prepend=0)
    if most is None or lengths.max() <= most:
        return stops
    parts = -(-lengths // most)
    number = np.arange(parts.sum()) - np.repeat(np.cumsum(parts) - parts, parts) + 1
    whole: NDArray[np.int64] = np.repeat(stops - lengths, parts) + number * most
    return np.minimum(whole, np.repeat(stops, parts))


def episodes(path: Path, found: Survey, task: str, clip: bool) -> Iterator[Episode]:
    """The episodes of a file.

    Args:
        path: The file.
        found: From `survey`.
        task: Name of their task.
        clip: Set actions beyond [-1, 1] on the bound; otherwise they are refused.

    Raises:
        InputError: Something cannot be read; names the episode and the step.
    """
    assert found.stops is not None
    stops, start, first = found.stops, 0, 0
    with Hdf5Reader(path) as file:
        names = [name for name in (*COLUMNS, *FLAGS, NEXT) if name in file.group("").shapes]
        while first < len(stops):
            after = int(np.searchsorted(stops, start + BLOCK // found.row, "right"))
            after = max(after, first + 1)
            stop = int(stops[after - 1])
            block = {name: file.read(name, start, stop) for name in names}
            for number in range(first, after):
                end = int(stops[number])
                begin = int(stops[number - 1]) if number else 0
                rows = {name: values[begin - start : end - start] for name, values in block.items()}
                yield cleaned(_episode(rows, task), f"{path}, episode {number}", clip)
            start, first = stop, after


def _episode(rows: dict[str, NDArray[Any]], task: str) -> Episode:
    """Rows of one episode; where no flag ends it, it was cut off."""
    length = len(rows["observations"])
    successor = rows.get(NEXT, rows["observations"])[-1:]
    terminated = rows["terminals"].reshape(-1) if "terminals" in rows else np.zeros(length, bool)
    truncated = rows["timeouts"].reshape(-1) if "timeouts" in rows else np.zeros(length, bool)
    if not terminated[-1] and not truncated[-1]:
        truncated = np.arange(length) == length - 1
    return Episode(
        task,
        np.concatenate([rows["observations"], successor]),
        rows["actions"],
        rows["rewards"].reshape(-1),
        np.zeros(length, bool),
        terminated,
        truncated,
    )
