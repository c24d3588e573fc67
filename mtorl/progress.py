"""Progress of long work: a bar on a terminal, plain lines elsewhere. Everything goes to standard error."""

import sys
import time
from types import TracebackType
from typing import Any

LINE_EVERY = 10.0
"""Seconds between two plain lines."""


class Progress:
    """Shows how far a piece of work is, its rate and the time left.

    Args:
        title: What is being done.
        total: Units of work in all.
        unit: Name of a unit, as in `steps`.
        start: Units that were done before (a continued run); they do not count for the rate.
        quiet: Show nothing.
    """

    def __init__(self, title: str, total: int, unit: str, start: int = 0, quiet: bool = False) -> None:
        self.title, self.total, self.unit, self.quiet = title, total, unit, quiet
        self._done = self._start = start
        self._note = ""
        self._bar: Any = None
        self._began = self._line = time.monotonic()

    def __enter__(self) -> "Progress":
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as RichProgress

            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, completed=self._done, rate="", note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif not self.quiet and kind is None:
            self._print()

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return max(time.monotonic() - self._began, 1e-9)

    @property
    def rate(self) -> float:
        """Units per second since the beginning."""
        return (self._done - self._start) / self.seconds

    def advance(self, units: int, note: str = "") -> None:
        """Adds finished units; `note` is shown beside the bar."""
        self._done += units
        self._note = note or self._note
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=f"{self.rate:,.0f} {self.unit}/s", note=self._note)
        elif not self.quiet and time.monotonic() - self._line > LINE_EVERY:
            self._print()

    def _print(self) -> None:
        self._line = time.monotonic()
        left = (self.total - self._done) / self.rate if self.rate > 0 else 0.0
        print(
            f"{self.title}: {self._done:,}/{self.total:,} {self.unit}, {self.rate:,.0f}/s, {left:.0f} s left"
            + (f", {self._note}" if self._note else ""),
            file=sys.stderr,
            flush=True,
        )
