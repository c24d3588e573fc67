"""A tracker at work beside training, which it can neither stop nor slow down."""

import queue
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.files import read_json, write_json
from mtorl.schema import MappingOf, Text, check
from mtorl.trainers.trackers import TrackedRun, Tracker
from mtorl.trainers.trackers.base import Cell

PATIENCE = 30.0
"""Seconds that the end of training waits for a tracker to send what is left."""
WAITING = 10_000
"""Calls that may wait for a slow tracker; what comes beyond them is not sent."""
IDENTITIES = "trackers.json"
"""A run's file of what trackers know it by."""


class Tracking:
    """Calls a tracker in a thread of its own. The first thing that it raises is its last: it is then left alone.

    Args:
        tracker: The tracker.
        name: Of the run.
        folder: Of the run; what the tracker knows it by is kept there.
        config: The run's configuration, as plain values.

    Attributes:
        continued: Whether the tracker knows this run from before.
    """

    def __init__(self, tracker: Tracker, name: str, folder: Path, config: dict[str, Any]) -> None:
        self._tracker, self._folder = tracker, folder
        kind = type(tracker)
        self._key = f"{kind.__module__}.{kind.__qualname__}"
        identity = _identities(folder).get(self._key)
        self.continued = identity is not None
        self._calls: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue(WAITING)
        self._left = False
        self._fault: str | None = None
        self._missed = 0
        self._thread = threading.Thread(target=self._work, name=f"mtorl {kind.__name__}", daemon=True)
        self._thread.start()
        self._call("begin", TrackedRun(name, folder, config, identity))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker.log`; returns at once, as the others do."""
        if numbers:
            self._call("log", step, numbers)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """See `Tracker.table`."""
        self._call("table", step, name, columns, rows)

    def film(self, step: int, name: str, file: Path) -> None:
        """See `Tracker.film`."""
        self._call("film", step, name, file)

    def file(self, step: int, name: str, file: Path) -> None:
        """See `Tracker.file`."""
        self._call("file", step, name, file)

    def close(self) -> None:
        """Waits a while for the tracker to take what is left, and warns if it cannot."""
        self._say()
        end = time.monotonic() + (0 if self._left else PATIENCE)
        with suppress(queue.Full):
            self._calls.put(("close", ()), timeout=max(0.0, end - time.monotonic()))
        self._thread.join(max(0.0, end - time.monotonic()))
        late = self._thread.is_alive() and self._fault is None
        self._say()
        if late and not self._left:
            self._warn(f"has not taken everything within {PATIENCE:g} seconds of the end, and is left alone")
        elif self._missed:
            self._warn(f"was too slow: {self._missed} times something was not sent")
        self._left = True

    def _call(self, method: str, *arguments: Any) -> None:
        self._say()
        if self._left:
            return
        try:
            self._calls.put_nowait((method, arguments))
        except queue.Full:
            self._missed += 1

    def _say(self) -> None:
        """Warns, once, if the tracker failed."""
        if self._fault is not None and not self._left:
            self._left = True
            self._warn(f"failed and is left alone: {self._fault}")

    def _warn(self, what: str) -> None:
        warnings.warn(
            f"the tracker {type(self._tracker).__name__} {what}. The numbers are in {self._folder}, in log.jsonl and "
            "for TensorBoard, as always.",
            stacklevel=4,
        )

    def _work(self) -> None:
        """The thread: one call after the other, until the tracker fails or is closed."""
        method = ""
        while self._fault is None and method != "close":
            method, arguments = self._calls.get()
            try:
                found = getattr(self._tracker, method)(*arguments)
                if method == "begin" and found is not None:
                    identities = _identities(self._folder)
                    write_json(self._folder / IDENTITIES, {**identities, self._key: str(found)})
            except BaseException as error:  # whatever their libraries raise, SystemExit among it
                text = " ".join(str(error).split()).rstrip(".")
                self._fault = f"{method} raised {type(error).__name__}{f': {text}' if text else ''}"


def _identities(folder: Path) -> dict[str, str]:
    """What trackers know a run by, by their classes; nothing where that cannot be read."""
    path = folder / IDENTITIES
    try:
        content = read_json(path, "identities of trackers") if path.exists() else {}
        check(content, MappingOf(Text()), f"identities of trackers {path}")
    except InputError:
        return {}
    return dict(content)
