"""Trackio, which keeps runs on this machine or in a space of Hugging Face."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtorl.trainers.trackers.base import Cell, TrackedRun, Tracker, installed


class Trackio(Tracker):
    """Trackio: curves and tables on this machine (`trackio show`), or in a space of Hugging Face.

    Args:
        project: Where runs are shown together.
        space: Name of the space; by default runs stay on this machine.
        server: Address of a server of one's own.
    """

    def __init__(self, project: str = "mtorl", space: str | None = None, server: str | None = None) -> None:
        self.project, self.space, self.server = project, space, server
        self._run: Any = None

    def check(self) -> None:
        """See `Tracker.check`."""
        installed("trackio")

    def begin(self, run: TrackedRun) -> str:
        """Runs are known by their names there, and two folders may have one name."""
        import trackio

        identity = run.identity or f"{run.name}-{secrets.token_hex(4)}"
        self._run = trackio.init(
            project=self.project,
            name=identity,
            space_id=self.space,
            server_url=self.server,
            config=run.config,
            resume="allow",
            embed=False,
        )
        return identity

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        self._run.log(dict(numbers), step=step)

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """See `Tracker.table`."""
        import trackio

        content: Any = [
            dict(zip(columns, row, strict=True)) for row in rows
        ]  # lists would lose the names in earlier versions
        self._run.log({name: trackio.Table(data=content)}, step=step)

    def film(self, step: int, name: str, file: Path) -> None:
        """See `Tracker.film`."""
        import trackio

        self._run.log({name: trackio.Video(str(file))}, step=step)

    def close(self) -> None:
        """Sends what is left."""
        if self._run is not None:
            self._run.finish()
            self._run = None
