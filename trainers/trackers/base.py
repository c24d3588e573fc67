"""What a tracker is told of a run."""

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtorl import InputError
from mtorl.schema import Document

Cell = str | float | int | None
"""An entry of a table."""


@dataclass(frozen=True)
class TrackedRun:
    """What is to be tracked.

    Attributes:
        name: Of the run.
        folder: Of the run; a tracker may keep files there, in a folder of its own name.
        config: The resolved configuration, as plain values.
        identity: What `Tracker.begin` returned when this run was tracked before; None: it was not.
    """

    name: str
    folder: Path
    config: Document
    identity: str | None = None


class Tracker(ABC):
    """Takes the numbers of a run as they come. `log` is all that a tracker needs.

    All of its methods are called in one thread, which is not that of training, and one after the other. A tracker that
    raises anything is left alone from then on, with a warning; training goes on. Constructors open nothing: a run's
    configuration is built again wherever the run is opened, and one tracker may be begun again after `close`.
    """

    def check(self) -> None:  # noqa: B027 (most trackers need nothing)
        """Looks whether it could begin, before training.

        Raises:
            InputError: A package is missing, say.
        """

    def begin(self, run: TrackedRun) -> str | None:
        """Begins, or goes on with the run that it knows by `run.identity`.

        Returns:
            By what it knows the run, to go on with it after an interruption; None: by nothing.
        """
        return run.identity

    @abstractmethod
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Takes numbers by their names, such as `training/policy/loss/reach-v3`.

        Args:
            step: Training steps that were finished. It never falls within a training; evaluations of a checkpoint say
                the checkpoint's. Several calls may be of one step.
            numbers: By the names that TensorBoard shows.
        """

    def table(  # noqa: B027 (not every tracker has tables)
        self, step: int, name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]
    ) -> None:
        """Takes a table, such as success per task."""

    def film(self, step: int, name: str, file: Path) -> None:  # noqa: B027 (nor films)
        """Takes a film, an MP4 or GIF file."""

    def file(self, step: int, name: str, file: Path) -> None:  # noqa: B027 (nor files)
        """Takes a file, such as the report of an evaluation."""

    def close(self) -> None:  # noqa: B027 (nor anything to close)
        """Nothing more comes."""


def installed(package: str) -> None:
    """Raises InputError, which says how to install it, where the package of a tracker is missing."""
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"the package {package} is not installed, and --tracker needs it. Install it (`pip install "
            f"'mtorl[{package}]'`), or leave --tracker out: TensorBoard's files and log.jsonl are written anyway."
        )
