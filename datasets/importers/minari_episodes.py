"""One episode of a Minari data set."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.enclosed import ORIGIN, REMEDY
from mtorl.datasets.episode import Episode
from mtorl.datasets.importers.hdf5_reader import Hdf5Reader
from mtorl.schema import check

COLUMNS = {"observations": 1, "actions": 0, "rewards": 0, "terminations": 0, "truncations": 0}
"""Rows beyond the number of steps."""
SUCCESS = ("infos/success", "infos/is_success")
"""Where Farama's environments say it."""
Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]


class MinariEpisode:
    """One episode, as far as it is known before its values are read.

    Args:
        file: The open file.
        number: Of the episode.

    Attributes:
        where: Names it in messages.
        dimensions: O and A.
        success: Key of the success flags; None: there are none.

    Raises:
        InputError: Its arrays are not what Minari writes.
    """

    def __init__(self, file: Hdf5Reader, number: int) -> None:
        self.where = f"{file.path}, episode {number}"
        self._file, self._name = file, f"episode_{number}"
        self._group = file.group(self._name)
        shapes = self._group.shapes
        missing = [name for name in COLUMNS if name not in shapes]
        if missing:
            raise InputError(
                f"{self.where}: expected arrays {missing}; it has {sorted(shapes)[:20]}. Only flat observations and "
                "actions are read."
            )
        self._steps = shapes["rewards"][0] if shapes["rewards"] else 0
        for name, more in COLUMNS.items():
            rows = self._steps + more
            flat = name in ("observations", "actions")
            if shapes[name][:1] != (rows,) or (len(shapes[name]) != 2 if flat else np.prod(shapes[name]) != rows):
                raise InputError(
                    f"{self.where}: {name} have the shape {shapes[name]}; expected {rows} rows of "
                    f"{'some numbers each' if flat else 'one number each'} for {self._steps} rewards. Images and other "
                    "arrays are not read."
                )
        self.dimensions = shapes["observations"][1], shapes["actions"][1]
        allowed = (self._steps, self._steps + 1)
        self.success = next((key for key in SUCCESS if key in shapes and np.prod(shapes[key]) in allowed), None)

    def episode(self, task: str) -> Episode:
        """Its values.

        Args:
            task: Name of the task.

        Raises:
            InputError: Something cannot be read.
        """
        seed = self._group.attributes.get("seed")
        values = {name: self._file.read(f"{self._name}/{name}") for name in COLUMNS}
        success = np.zeros(self._steps, dtype=np.bool_)
        if self.success is not None:
            success = self._file.read(f"{self._name}/{self.success}")
        return Episode(
            task,
            values["observations"],
            values["actions"],
            values["rewards"].reshape(-1),
            success.reshape(-1)[-self._steps :],  # after the reset there may be a row as well
            values["terminations"].reshape(-1),
            values["truncations"].reshape(-1),
            seed=seed if isinstance(seed, int) and abs(seed) < 2**62 else 0,
        )

    def exported(self, tasks: Sequence[str]) -> Episode:
        """Its values, and what our own exports say of an episode.

        Args:
            tasks: Names of all tasks.

        Raises:
            InputError: It says something else, or cannot be read.
        """
        known, what = self._group.attributes, f"{self.where}: what is said of it"
        check(known, ORIGIN, what, REMEDY)
        if known.get("task") not in tasks:
            raise InputError(
                f"{what} names the task {str(known.get('task'))[:60]!r}; expected one of {list(tasks)}. {REMEDY}"
            )
        origin = {name: known[name] for name in ORIGIN.optional if name in known}
        return replace(self.episode(known["task"]), **origin)


def mapped(bounds: Bounds) -> NDArray[np.bool_]:
    """Which actions `[A]` are mapped onto [-1, 1]: those with bounds, which are others."""
    low, high = bounds
    return np.isfinite(low) & np.isfinite(high) & ((low != -1) | (high != 1))


def rescaled(episode: Episode, bounds: Bounds | None) -> Episode:
    """With actions mapped from their bounds onto [-1, 1]."""
    if bounds is None or not mapped(bounds).any():
        return episode
    low, high = (np.where(mapped(bounds), bound, sign) for bound, sign in zip(bounds, (-1, 1), strict=True))
    actions: NDArray[Any] = episode.actions.astype(np.float64)
    with np.errstate(over="ignore"):
        actions = np.where(mapped(bounds), 2 * ((actions - low) / (high - low)) - 1, actions)
    return replace(episode, actions=actions)
