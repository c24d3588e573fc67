"""Weights & Biases."""

import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mtorl.trainers.trackers.base import Cell, TrackedRun, Tracker, installed

BEGINNING = 60
"""Seconds within which the server must have answered."""


class Wandb(Tracker):
    """Weights & Biases, at wandb.ai or at a server of one's own (`WANDB_BASE_URL`).

    The key is that of `wandb login` or `WANDB_API_KEY`. Files of its own lie in the run's folder, in `wandb`.

    Args:
        project: Where runs are shown together.
        entity: The user or team; by default that of the key.
        group: Runs that are shown as one, seeds say.
        mode: online, or offline (`wandb sync` sends the files later); by default what `WANDB_MODE` says, or online.
    """

    def __init__(
        self,
        project: str = "mtorl",
        entity: str | None = None,
        group: str | None = None,
        mode: Literal["online", "offline"] | None = None,
    ) -> None:
        self.project, self.entity, self.group, self.mode = project, entity, group, mode
        self._run: Any = None

    def check(self) -> None:
        """See `Tracker.check`."""
        installed("wandb")

    def begin(self, run: TrackedRun) -> str:
        """See `Tracker.begin`."""
        import wandb

        identity = run.identity or secrets.token_hex(4)
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            group=self.group,
            mode=self.mode,
            name=run.name,
            id=identity,
            resume="allow",
            dir=str(run.folder),
            config=run.config,
            settings=wandb.Settings(console="off", silent=True, init_timeout=BEGINNING, login_timeout=BEGINNING),
        )
        # Its own counter of steps only rises; an evaluation of an earlier checkpoint comes after training.
        self._run.define_metric("*", step_metric="step")
        return identity

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Tracker.log`."""
        self._run.log({"step": step, **numbers})

    def table(self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """See `Tracker.table`."""
        import wandb

        self._run.log({"step": step, name: wandb.Table(columns=list(columns), data=[list(row) for row in rows])})

    def film(self, step: int, name: str, file: Path) -> None:
        """See `Tracker.film`."""
        import wandb

        kind: Any = file.suffix[1:]
        self._run.log({"step": step, name: wandb.Video(str(file), format=kind)})

    def file(self, step: int, name: str, file: Path) -> None:
        """Copies the file among those that are sent at the end."""
        shutil.copy(file, Path(self._run.dir) / file.name)

    def close(self) -> None:
        """Sends what is left."""
        if self._run is not None:
            self._run.finish()
            self._run = None
