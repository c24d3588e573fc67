"""The log of a run: one JSON object per line, and the same numbers for TensorBoard."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.files import refused_write


class RunLog:
    """Writes `log.jsonl` and TensorBoard files into a run's folder.

    Args:
        folder: The run's folder.
        step: Step from which the run continues; TensorBoard hides what an interrupted attempt wrote after it.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = folder / "log.jsonl"
        with self._refused_writes():
            self._file = self._path.open("ab")
            self._board = SummaryWriter(folder / "tensorboard", purge_step=step + 1 if step else 0)

    def write(self, entry: dict[str, Any]) -> None:
        """Adds an entry; `step` is its step, numbers (also nested by one level) become TensorBoard curves."""
        line = json.dumps(entry | {"time": round(time.time(), 3)}, allow_nan=False)
        group = entry["kind"].replace(" ", "_")
        with self._refused_writes():
            self._file.write(line.encode() + b"\n")
            self._file.flush()
            for key, value in entry.items():
                if isinstance(value, dict):
                    for name, number in value.items():
                        self._board.add_scalar(f"{group}/{key}/{name}", number, entry["step"])
                elif isinstance(value, float):
                    self._board.add_scalar(f"{group}/{key}", value, entry["step"])

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
            self._file.truncate(size)
            self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Closes the files."""
        with self._refused_writes():
            self._file.close()
            self._board.close()


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's log; a last line cut off by a crash is left out."""
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    entries = []
    for line in path.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            break
    return entries
