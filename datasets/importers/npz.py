"""Arrays in .npz files, under whatever names they have there."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.card import Card
from mtorl.datasets.episode import Episode
from mtorl.datasets.importers import flat
from mtorl.datasets.importers.base import Contents, Importer
from mtorl.datasets.importers.flat_npz import open_npz

NAMES = ("observations", "actions", "rewards", "terminals")


class Npz(Importer):
    """Arrays in .npz files: one task a file, an episode ends where a flag says so.

    Args:
        keys: Names in the files of observations, actions, rewards and terminals, where they have others.
    """

    def __init__(self, keys: dict[str, str] | None = None) -> None:
        self.keys = {name: name for name in NAMES} | (keys or {})

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the ending of its name."""
        return path.suffix == ".npz" and path.is_file()

    def contents(self, paths: Sequence[Path]) -> Contents:
        """One task a file, named as it is."""
        if flat.are_exported(open_npz, paths):
            return flat.contents(open_npz, paths)
        first = self._read(paths[0])
        names = tuple(path.stem for path in paths)
        card = Card(f"arrays of {', '.join(path.name for path in paths)}")
        sizes = first["observations"].shape[1], first["actions"].shape[1]
        return Contents(names, *sizes, card, returns_only=names)

    def episodes(self, paths: Sequence[Path]) -> Iterator[Episode]:
        """In the order of the files; the successor of an episode's last step is that step's own observation."""
        if flat.are_exported(open_npz, paths):
            yield from flat.episodes(open_npz, paths)
            return
        for path in paths:
            arrays = self._read(path)
            stops = np.flatnonzero(arrays["terminals"].reshape(-1)) + 1
            for start, stop in zip([0, *stops[:-1]], stops, strict=True):
                observations = arrays["observations"][start:stop]
                terminated = arrays["terminals"][start:stop].reshape(-1).astype(bool)
                yield Episode(
                    path.stem,
                    np.concatenate([observations, observations[-1:]]),
                    arrays["actions"][start:stop],
                    arrays["rewards"][start:stop],
                    np.zeros_like(terminated),
                    terminated,
                    np.zeros_like(terminated),
                )

    def _read(self, path: Path) -> dict[str, NDArray[Any]]:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in self.keys.values() if key not in archive]
            if missing:
                raise InputError(f"{path} has no arrays {missing}; it has {archive.files}. Name them with --keys.")
            return {name: archive[key] for name, key in self.keys.items()}
