"""The rows of a LeRobot data set: looked through first, for where episodes begin, then read a few at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.importers.base import state_of
from mtorl.datasets.importers.parquet_reader import Columns, ParquetReader

EPISODE, TASK, FRAME = "episode_index", "task_index", "frame_index"
MARKS = (EPISODE, TASK, FRAME)
"""Say of each row where it belongs; whole numbers."""
MARK_ROWS = 1 << 18
"""Rows of marks that are read at once."""
BLOCK = 1 << 24
"""Bytes of all columns that are read at once, about."""
LONGEST = 1 << 28
"""Bytes of one episode, at most: it is held in memory."""
WIDEST = 1 << 18
"""Numbers of one row of a column, at most."""


@dataclass(frozen=True)
class Survey:
    """What a data set holds, as far as it is known before its episodes are read.

    Attributes:
        kinds: Of its columns; the same in every file.
        episodes: int64 `[E]`, their indices; they only grow.
        lengths: int64 `[E]`.
        tasks: int64 `[E]`, index of the task of each.
        rows: How many each file has.
    """

    kinds: Mapping[str, str]
    episodes: NDArray[np.int64]
    lengths: NDArray[np.int64]
    tasks: NDArray[np.int64]
    rows: tuple[int, ...]


@dataclass(frozen=True)
class _Runs:
    """The episodes of one file, `[R]` each: their indices and tasks, how many rows they have in it, their first frames.

    Attributes:
        columns: Of the file.
        table: int64 `[R, 4]`.
    """

    columns: Columns
    table: NDArray[np.int64]


def survey(files: Sequence[Path]) -> Survey:
    """Looks all files through: once, as long as they do not change.

    Raises:
        InputError: One cannot be read, or the rows of an episode are not all there, in their order.
    """
    found = [_runs(path, *state_of(path)) for path in files]
    rows: list[tuple[int, int, int]] = []
    for path, runs in zip(files, found, strict=True):
        if runs.columns.kinds != found[0].columns.kinds:
            raise InputError(f"{path} has other columns than {files[0]}; expected the same in every file.")
        for index, task, count, frame in runs.table.tolist():
            if rows and index == rows[-1][0] and frame == rows[-1][2]:  # it began in the file before
                if task != rows[-1][1]:
                    raise InputError(f"{path}, episode {index}: its task changes at step {frame}; expected one.")
                rows[-1] = index, task, rows[-1][2] + count
                continue
            if frame or (rows and index <= rows[-1][0]):
                raise InputError(
                    f"{path}, episode {index}: it begins at step {frame} of it, behind "
                    f"{f'episode {rows[-1][0]}' if rows else 'nothing'}; expected whole episodes in their order."
                )
            rows.append((index, task, count))
    if not rows:
        raise InputError(f"{files[0]} holds no rows; expected at least one episode.")
    episodes, tasks, lengths = np.array(rows, dtype=np.int64).T
    return Survey(found[0].columns.kinds, episodes, lengths, tasks, tuple(it.columns.rows for it in found))


@lru_cache(4096)
def _runs(path: Path, *state: int) -> _Runs:
    with ParquetReader(path) as reader:
        columns = reader.columns()
        for name in MARKS:
            if columns.kinds.get(name) != "numbers":
                raise InputError(
                    f"{path}: {name} is {columns.kinds.get(name, 'not there')}; expected a whole number for each row, "
                    f"beside {list(columns.kinds)[:30]}."
                )
        parts = [np.zeros((0, 4), np.int64)]
        last = np.zeros((3, 0), np.int64)
        for start in range(0, columns.rows, MARK_ROWS):
            stop = min(start + MARK_ROWS, columns.rows)
            block = np.stack([_whole(reader, name, start, stop) for name in MARKS])
            _check_order(np.concatenate([last, block], axis=1), str(path))
            begins = np.flatnonzero(np.diff(block[0], prepend=-1))
            counts = np.diff(begins, append=stop - start)
            runs = np.stack([block[0][begins], block[1][begins], counts, block[2][begins]], axis=1)
            if last.size and last[0, 0] == block[0, 0]:  # the first one goes on
                parts[-1][-1, 2] += runs[0, 2]
                runs = runs[1:]
            parts += [runs] if len(runs) else []
            last = block[:, -1:]
    return _Runs(columns, np.concatenate(parts))


def _whole(reader: ParquetReader, name: str, start: int, stop: int) -> NDArray[np.int64]:
    values = reader.read(name, start, stop)
    if values.dtype.kind not in "iu" or values.shape != (stop - start,) or values.astype(np.int64).min() < 0:
        raise InputError(
            f"{reader.path}: {name} of the rows from {start} is {values.dtype} of the shape {values.shape}; expected "
            f"{stop - start} whole numbers, none below 0."
        )
    return values.astype(np.int64)


def _check_order(marks: NDArray[np.int64], where: str) -> None:
    """Raises InputError unless rows `[3, N]` stand in the order of their episodes, and of their steps."""
    episode, task, frame = np.diff(marks)
    same = episode == 0
    for wrong, what in (
        (episode < 0, "stands behind a later episode"),
        (same & (task != 0), "has another task than the step before"),
        (same & (frame != 1), "does not follow the step before"),
        (~same & (marks[2, 1:] != 0), "is the first one that is there"),
    ):
        if wrong.any():
            index, _, step = marks[:, int(wrong.argmax()) + 1]
            raise InputError(f"{where}, episode {index}: its step {step} {what}; expected whole episodes in order.")


def widths(path: Path, names: Sequence[str], kinds: Mapping[str, str]) -> dict[str, int]:
    """How many numbers a row of each column has.

    Args:
        path: A file with at least one row.
        names: Of the columns.
        kinds: Of all columns.

    Raises:
        InputError: A column is not there, or holds something else.
    """
    found = {}
    with ParquetReader(path) as reader:
        for name in names:
            if kinds.get(name) not in ("numbers", "rows"):
                raise InputError(
                    f"{path}: {name} is {kinds.get(name, 'not there')}; expected numbers, one or a row of them a step."
                )
            found[name] = int(np.prod(reader.read(name, 0, 1).shape[1:]))
            if not 0 < found[name] <= WIDEST:
                raise InputError(f"{path}: {name} has {found[name]} numbers a step; expected 1 to {WIDEST}.")
    return found


def blocks(
    files: Sequence[Path], found: Survey, columns: Mapping[str, int]
) -> Iterator[tuple[int, dict[str, NDArray[Any]], str]]:
    """The number of each episode, its rows by column, and its place for messages.

    Args:
        files: Of the data set.
        found: From `survey`.
        columns: Those that are read, from `widths`.

    Raises:
        InputError: Something cannot be read, or an episode is too long.
    """
    row = 8 * sum(columns.values())
    size = max(BLOCK // row, 1)
    number, held = 0, 0
    rest: list[dict[str, NDArray[Any]]] = []
    for path, rows in zip(files, found.rows, strict=True):
        with ParquetReader(path) as reader:
            for start in range(0, rows, size):
                stop = min(start + size, rows)
                rest.append({name: _rows(reader, name, start, stop, width) for name, width in columns.items()})
                held += stop - start
                length = int(found.lengths[number])
                if length * row > LONGEST:
                    raise InputError(
                        f"{path}, episode {found.episodes[number]}: its {length} steps take more than {LONGEST} bytes; "
                        "expected at most so many. Split it."
                    )
                if held < length:
                    continue
                block = {name: np.concatenate([part[name] for part in rest]) for name in columns}
                begin = 0
                while number < len(found.lengths) and begin + found.lengths[number] <= held:
                    end = begin + int(found.lengths[number])
                    where = f"{path}, episode {found.episodes[number]}"
                    yield number, {name: values[begin:end] for name, values in block.items()}, where
                    begin, number = end, number + 1
                held -= begin
                rest = [{name: values[begin:] for name, values in block.items()}] if held else []


def _rows(reader: ParquetReader, name: str, start: int, stop: int, width: int) -> NDArray[Any]:
    """Rows of a column; raises InputError if they have another width than those of the first file."""
    values = reader.read(name, start, stop)
    if len(values) != stop - start or values.size != len(values) * width:
        raise InputError(
            f"{reader.path}: {name} of the rows from {start} has the shape {values.shape}; expected {stop - start} "
            f"rows of {width} numbers, as in the first file."
        )
    return values
