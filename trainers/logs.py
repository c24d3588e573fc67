"""The log of a run: one JSON object per line, and the same numbers for TensorBoard."""

import json
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.files import DamageWarning, refused_write, regular
from mtorl.schema import Document, check
from mtorl.trainers.entries import KINDS, LINE, E, Entry, EvaluationEntry, TrainingEntry
from mtorl.trainers.trackers.base import Cell
from mtorl.trainers.tracking import Tracking


class RunLog:
    """Writes `log.jsonl` and TensorBoard files into a run's folder.

    Args:
        folder: The run's folder.
        step: Step from which the run continues; TensorBoard hides what an interrupted attempt wrote after it.
        tracking: A tracker that gets the same numbers.
    """

    def __init__(self, folder: Path, step: int = 0, tracking: Tracking | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path, self._tracking = folder / "log.jsonl", tracking
        self._told: set[str] = set()
        with self._refused_writes():
            self._file = self._path.open("ab")
            self._board = SummaryWriter(folder / "tensorboard", purge_step=step + 1 if step else 0)

    def write(self, entry: Entry) -> None:
        """Adds an entry.

        In TensorBoard numbers (also nested by one level) become curves, matrices with entries in [-1, 1] pictures.
        """
        content = entry.plain()
        line = json.dumps(content | {"time": round(time.time(), 3)}, allow_nan=False)
        group, numbers = _group(entry), _curves(content, _group(entry))
        with self._refused_writes():
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            for name, number in numbers.items():
                self._board.add_scalar(name, number, entry.step)
            for key, value in content.items():
                if isinstance(value, list) and isinstance(value[0], list):
                    self._board.add_image(f"{group}/{key}", _picture(value), entry.step)
        if self._tracking and _key(content) not in self._told:
            self._tracking.log(entry.step, numbers)
            if isinstance(entry, EvaluationEntry):
                self._tracking.table(entry.step, f"{group}/table", *_table(entry))

    def flush(self) -> int:
        """Forces everything to disk; returns the length of the log in bytes."""
        with self._refused_writes():
            self._file.flush()
            os.fsync(self._file.fileno())
            self._board.flush()
        return self._file.tell()

    @contextmanager
    def _refused_writes(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise refused_write(self._path, error) from error

    def rewind(self, size: int) -> None:
        """Cuts off what was written after the checkpoint from which the run continues.

        Raises:
            InputError: The log is shorter than it was then.
        """
        with self._refused_writes():
            if os.fstat(self._file.fileno()).st_size < size:
                raise InputError(
                    f"{self._path} is shorter than when the checkpoint was written ({size} bytes): it was deleted or "
                    "edited. Restore it, or start a new run."
                )
            if self._tracking and self._tracking.continued:  # which has what is cut off, and will be told once
                self._told = {_key(line) for line in read_log(self._path.parent, size)}
            self._file.truncate(size)
            self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Closes the files."""
        with self._refused_writes():
            self._file.close()
            self._board.close()
        if self._tracking:
            self._tracking.close()


class NoLog(RunLog):
    """Writes nothing, for a rehearsal, and for all processes but the first of those that train together."""

    def __init__(self) -> None:
        """Opens no files."""

    def write(self, entry: Entry) -> None:
        """Forgets the entry."""

    def flush(self) -> int:
        """Nothing is written."""
        return 0

    def rewind(self, size: int) -> None:
        """Nothing was written."""

    def close(self) -> None:
        """There are no files."""


def _group(entry: Entry) -> str:
    return entry.kind.replace(" ", "_")


def _key(line: Document) -> str:
    """Tells a line from others of the same run."""
    return f"{line['kind']} {line['step']} {line.get('phase', '')}"


def _curves(content: Document, group: str) -> dict[str, float]:
    """The numbers of an entry, also those nested by one level, by the names of their curves."""
    found: dict[str, float] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            found |= {f"{group}/{key}/{name}": number for name, number in value.items()}
        elif isinstance(value, float):
            found[f"{group}/{key}"] = value
    return found


def _table(entry: EvaluationEntry) -> tuple[list[str], list[list[Cell]]]:
    """Columns and rows of what an evaluation found, a row per task."""
    judged = {name: found for name, found in (("success", entry.success), ("return", entry.returns)) if found}
    tasks = dict.fromkeys(task for found in judged.values() for task in found)
    return ["task", *judged], [[task, *(found.get(task) for found in judged.values())] for task in tasks]


def _picture(matrix: list[list[float]]) -> Any:
    """A matrix as a picture `[3, H, W]`: -1 blue, 0 white, 1 red, eight pixels an entry; fewer where it is large."""
    import numpy as np

    side = min(8, max(1, 512 // len(matrix)))
    values = np.kron(np.array(matrix), np.ones((side, side)))
    return np.stack([1 - values.clip(max=0) * -1, 1 - np.abs(values), 1 - values.clip(min=0)])


class Log:
    """The log of a run, read.

    Args:
        folder: Of the run; damaged lines are left out with a warning, as `read_log` does.
    """

    def __init__(self, folder: Path) -> None:
        lines = read_log(folder)
        self.entries = [KINDS[line["kind"]].read(line) for line in lines if line["kind"] in KINDS]

    def of(self, kind: type[E]) -> list[E]:
        """The entries of a kind, in their order."""
        return [entry for entry in self.entries if type(entry) is kind]

    def minutes(self) -> float:
        """How long training took, without evaluations, until the last entry about it."""
        entries = self.of(TrainingEntry)
        begun = [0, *[row.step for row in entries]]
        pairs = [it for it in zip(begun, entries, strict=False) if it[1].steps_per_second > 0]
        return sum((row.step - last) / row.steps_per_second for last, row in pairs) / 60


def read_log(folder: Path, start: int = 0) -> list[Document]:
    """The lines of a run's log, as they are; a last line cut off by a crash is left out.

    Other lines that are no entries are left out, too, with a `DamageWarning` that names the first of them.

    Args:
        folder: Of the run.
        start: Byte from which to read, where a line begins.
    """
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    entries, bad = [], []
    lines = regular(path, "the log").read_bytes()[start:].split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            check(entry, LINE, "", "")
            check(entry, KINDS[entry["kind"]].schema if entry["kind"] in KINDS else LINE, "", "")
            entries.append(entry)
        except (ValueError, RecursionError):
            if number < len(lines):  # the last line ends the file, or was being written
                bad.append(number)
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        warnings.warn(
            f"{path}: line {bad[0]}{more} cannot be read as an entry of the log and is left out. Restore the file if "
            "it matters.",
            DamageWarning,
            stacklevel=2,
        )
    return entries
