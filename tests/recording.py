"""Trackers for tests: one that writes down what it is told, and one that fails."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtorl.trainers.trackers import TrackedRun, Tracker


class Writing(Tracker):
    """Adds a line to a file for everything that it is told.

    Args:
        path: The file.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def begin(self, run: TrackedRun) -> str:
        self._write("begin", run.name, run.config["seed"], run.identity)
        return run.identity or "known"

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._write("log", step, dict(numbers))

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self._write("table", step, name, columns, rows)

    def film(self, step: int, name: str, file: Path) -> None:
        self._write("film", step, name, file.name, file.exists())

    def close(self) -> None:
        self._write("close")

    def _write(self, *words: Any) -> None:
        with Path(self.path).open("a") as file:
            file.write(json.dumps(words) + "\n")


class Failing(Tracker):
    """Fails.

    Args:
        at: The method that raises.
        path: Gets a line for every call.
        slow: Seconds that each call takes.
    """

    def __init__(self, at: str = "", path: str = "/dev/null", slow: float = 0.0) -> None:
        self.at, self.path, self.slow = at, path, slow

    def begin(self, run: TrackedRun) -> None:
        self._called("begin")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._called("log")

    def close(self) -> None:
        self._called("close")

    def _called(self, method: str) -> None:
        with Path(self.path).open("a") as file:
            file.write(f"{method}\n")
        time.sleep(self.slow)
        if method == self.at:
            raise SystemExit("no network") if method == "begin" else OSError(f"{method} is refused.")
