"""What reads data of one kind. The writer does the rest: checks, columns, hashes, one rename at the end."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.card import Card
from mtorl.datasets.episode import Episode
from mtorl.schema import Document


@dataclass(frozen=True)
class Contents:
    """What is known of data before their episodes are read.

    Attributes:
        task_names: In the order in which they are to be stored.
        observation_dim: O.
        action_dim: A.
        card: Where the episodes are from.
        suite: `class_path` and `init_args` of the suite that policies trained on them are to play; None: nothing is
            known, and they cannot be played.
        horizon: Steps of the longest possible episode; None: of the longest there is.
        versions: Of the simulator that they were recorded in, as far as known.
        returns_only: Names of the tasks without a success flag.
        episodes: How many there are; None: unknown before they are read.
        own_dimensions: Observation and action dimension of each task, where the rest of O and A is padding.
        source: How the episodes were made, as far as the data say, in the words of a manifest's `source`.
        parents: The data sets that they were made from, as far as the data say.
    """

    task_names: tuple[str, ...]
    observation_dim: int
    action_dim: int
    card: Card
    suite: Document | None = None
    horizon: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    returns_only: tuple[str, ...] = ()
    episodes: int | None = None
    own_dimensions: Sequence[tuple[int, int]] | None = None
    source: Document = field(default_factory=dict)
    parents: Sequence[Document] = ()


class Importer(ABC):
    """Reads data of one kind. Its constructor's arguments are its options on the command line.

    Whatever is wrong with a file is an `InputError` that names the file and what was expected, found and can be done:
    files are from strangers. Nothing in them is run, and what is kept in memory does not grow with their size.
    """

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether data of this kind seem to be there; looks at names and first bytes only, and never raises."""

    def paths(self, words: Sequence[str]) -> list[Path]:
        """The files or folders that words of a command line stand for: paths, unless an importer knows other names.

        Raises:
            InputError: One of them does not exist.
        """
        files = [Path(word) for word in words]
        missing = [str(path) for path in files if not path.exists()]
        if missing:
            raise InputError(f"{', '.join(missing)}: there is no such file or folder. Check the path.")
        return files

    @abstractmethod
    def contents(self, paths: Sequence[Path]) -> Contents:
        """What is known before episodes are read.

        Raises:
            InputError: The paths hold no such data, or data that do not belong together.
        """

    @abstractmethod
    def episodes(self, paths: Sequence[Path]) -> Iterator[Episode]:
        """Yields the episodes of all paths, in an order that is always the same.

        Raises:
            InputError: Something cannot be read; names the file, and the episode and step if there is one.
        """


def check_finite(values: NDArray[Any], name: str, where: str) -> None:
    """Raises InputError for NaN and infinity in an array `[L, ...]`.

    Args:
        values: Of one episode.
        name: What they are, in the plural.
        where: The file, and the episode in it.
    """
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        step = int((~np.isfinite(values)).reshape(len(values), -1).any(-1).argmax())
        raise InputError(f"{where}: {name} hold NaN or infinity at step {step}; expected finite numbers.")


def named_tasks(asked: Sequence[str] | None, usual: Sequence[str], what: str) -> tuple[str, ...]:
    """Names of tasks, one for each of several places.

    Args:
        asked: By `--tasks`; None: the usual ones.
        usual: By the places' own names.
        what: The places, in the plural.

    Raises:
        InputError: They are not one each, or two of them are the same.
    """
    if asked and len(asked) != len(usual):
        raise InputError(f"--tasks names {len(asked)} tasks; expected one for each of {len(usual)} {what}.")
    names = tuple(asked or usual)
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"two of the {what} make the task {twice[0]!r}. Name them with --tasks.")
    return names


def check_alike(places: Sequence[object], dimensions: Sequence[tuple[int, int]]) -> None:
    """Raises InputError if the dimensions (O and A) differ between the places from which tasks are read."""
    for place, found in zip(places, dimensions, strict=True):
        if found != dimensions[0]:
            raise InputError(
                f"{places[0]} has observations and actions of {dimensions[0]} numbers, {place} of {found}; the tasks "
                "of a data set have the same. Import each on its own, and train one policy on all with the suite Union."
            )


def state_of(path: Path) -> tuple[int, int]:
    """What changes when a file does; raises InputError if it cannot be looked at."""
    try:
        state = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return state.st_mtime_ns, state.st_size
