"""One file per task, in the flat layout."""

import re
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.enclosed import Part, write_part
from mtorl.datasets.exporters.base import Exporter
from mtorl.datasets.flat import columns_of
from mtorl.datasets.staging import new_file, new_store
from mtorl.datasets.store import EpisodeStore


class FlatTask:
    """The episodes of one task, as columns of the flat layout (see `datasets.flat`).

    Args:
        store: The data set.
        task: Name of the task.
        numbers: Its episodes.
    """

    def __init__(self, store: EpisodeStore, task: str, numbers: NDArray[np.int64]) -> None:
        self.store, self.numbers = store, numbers
        self.steps = int(store.index["length"][numbers].sum())
        self.manifest = write_part(store.manifest, Part(task, int(numbers[0]), len(numbers), len(store)))
        self.keys = {name: (values.dtype, values.shape[1:]) for name, values in columns_of(store, numbers[0]).items()}

    def blocks(self, key: str) -> Iterator[NDArray[Any]]:
        """A column in blocks `[L, ...]`, an episode each."""
        return (columns_of(self.store, number)[key] for number in self.numbers)


class FlatFiles(Exporter):
    """One file per task, in the layout of D4RL: every quantity is one array, episode after episode.

    Args:
        out: A new folder for one file per task; or, for a single task, the file.
    """

    suffixes: ClassVar[tuple[str, ...]]
    """Endings of such files; the first is that of files in a folder."""

    def __init__(self, out: str) -> None:
        self.out = out

    def export(self, store: EpisodeStore) -> Path:
        """One file for each task that has episodes."""
        out = Path(self.out)
        numbers = {name: np.flatnonzero(store.index["task"] == place) for place, name in enumerate(store.task_names)}
        tasks = {name: FlatTask(store, name, found) for name, found in numbers.items() if found.size}
        if out.suffix not in self.suffixes:
            with new_store(out) as folder:
                for path, task in zip(_files(folder, list(tasks), self.suffixes[0]), tasks.values(), strict=True):
                    self.write(path, task)
            return out
        if len(tasks) > 1:
            raise InputError(
                f"{out} is to hold one task; {store.path} has {len(tasks)}. Give a folder as --out: it gets a file for "
                "each of them."
            )
        with new_file(out) as path:
            self.write(path, next(iter(tasks.values())))
        return out

    @abstractmethod
    def write(self, path: Path, task: FlatTask) -> None:
        """Writes the file of one task."""


def _files(folder: Path, names: Sequence[str], suffix: str) -> list[Path]:
    """A file for each task; names of tasks may hold what names of files may not."""
    words = [re.sub(r"[^\w.+-]+", "_", name)[:100].lstrip(".") for name in names]
    if "" in words or len({word.lower() for word in words}) < len(words):
        words = [f"{number}-{word}" for number, word in enumerate(words)]
    return [folder / f"{word}{suffix}" for word in words]
