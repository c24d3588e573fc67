"""Writes episodes into a new store, column by column, in bounded memory."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.files import refused_write, write_atomically, write_json
from mtorl.datasets.statistics import QUANTILES, RunningMoments, returns_to_go
from mtorl.datasets.store import EPISODE_DTYPE, SCHEMA, STEP_COLUMNS, Episode, sha256


class StoreWriter:
    """Writes episodes into a new store, one column file after the other, in bounded memory.

    Args:
        path: Folder of the store.
        suite: `class_path` and `init_args` of the suite.
        task_names: Names of all tasks, in order.
        dimensions: O and A.
        horizon: Steps of the longest possible episode.
        versions: Versions of the simulator and its packages.
        source: Recipe and arguments that made the episodes.
    """

    def __init__(
        self,
        path: Path,
        suite: dict[str, Any],
        task_names: Sequence[str],
        dimensions: tuple[int, int],
        horizon: int,
        versions: dict[str, str],
        source: dict[str, Any],
    ) -> None:
        self.path = path
        self.task_names = tuple(task_names)
        self.observation_dim, self.action_dim = dimensions
        self._head = {
            "schema": SCHEMA,
            "suite": suite,
            "task_names": list(task_names),
            "observation_dim": self.observation_dim,
            "action_dim": self.action_dim,
            "horizon": horizon,
            "versions": versions,
            "source": source,
            "parents": [],
        }

    def write(self, episodes: Iterable[Episode]) -> None:
        """Writes all columns, then the manifest.

        Args:
            episodes: In the order in which they are to be stored; consumed once.

        Raises:
            InputError: An episode is malformed, or the file system refuses to write.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        raw = {
            name: _ColumnFile(self.path / f".{name}.raw", dtype)
            for name, dtype in {"observations": "<f4", **STEP_COLUMNS}.items()
        }
        index, tallies = [], [_TaskTally(self.observation_dim) for _ in self.task_names]
        try:
            for episode in episodes:
                self._check(episode)
                task = self.task_names.index(episode.task)
                raw["observations"].append(episode.observations)
                raw["returns_to_go"].append(returns_to_go(episode.rewards))
                for name in ("actions", "rewards", "success", "terminated", "truncated"):
                    raw[name].append(getattr(episode, name))
                index.append((task, len(episode), episode.goal, episode.seed, episode.noise, episode.random))
                tallies[task].add(episode)
            steps = sum(row[1] for row in index)
            shapes = {"observations": (steps + len(index), self.observation_dim), "actions": (steps, self.action_dim)}
            columns = {
                name: column.seal(self.path / f"{name}.npy", shapes.get(name, (steps,))) for name, column in raw.items()
            }
        finally:
            for column in raw.values():
                column.discard()
        table = np.array(index, dtype=EPISODE_DTYPE)
        write_atomically(self.path / "episodes.npy", lambda file: npy.write_array(file, table, allow_pickle=False))
        columns["episodes"] = _describe(self.path / "episodes.npy", table.shape)
        write_json(
            self.path / "manifest.json",
            self._head
            | {
                "episodes": len(index),
                "steps": steps,
                "tasks": [
                    {"name": name} | tally.summary() for name, tally in zip(self.task_names, tallies, strict=True)
                ],
                "columns": columns,
            },
        )

    def _check(self, episode: Episode) -> None:
        if episode.task not in self.task_names:
            raise InputError(f"an episode names the task {episode.task!r}; expected one of {list(self.task_names)}.")
        episode.check()
        found = (episode.observations.shape[1], episode.actions.shape[1])
        if found != (self.observation_dim, self.action_dim):
            raise InputError(
                f"an episode of {episode.task} has observation and action dimensions {found}; expected "
                f"{(self.observation_dim, self.action_dim)}."
            )


class _ColumnFile:
    """Raw values of one column while their number is unknown; `seal` puts the .npy header in front."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.path, self.dtype = path, np.dtype(dtype)
        self._file: BinaryIO = path.open("wb")

    def append(self, values: NDArray[Any]) -> None:
        try:
            self._file.write(np.ascontiguousarray(values, dtype=self.dtype).data)
        except OSError as error:
            raise refused_write(self.path, error) from error

    def seal(self, path: Path, shape: tuple[int, ...]) -> dict[str, Any]:
        try:
            self._file.close()
        except OSError as error:
            raise refused_write(self.path, error) from error

        def write(file: BinaryIO) -> None:
            header = {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(file, header)
            with self.path.open("rb") as source:
                while block := source.read(1 << 22):
                    file.write(block)

        write_atomically(path, write)
        return _describe(path, shape)

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: what could not be flushed is being thrown away
            self._file.close()
        self.path.unlink(missing_ok=True)


class _TaskTally:
    """Statistics of one task's episodes for the manifest."""

    def __init__(self, observation_dim: int) -> None:
        self.moments = RunningMoments(observation_dim)
        self.returns: list[float] = []
        self.any_success = self.last_success = 0

    def add(self, episode: Episode) -> None:
        self.moments.add(episode.observations[:-1])  # the states in which an action was taken
        self.returns.append(float(episode.rewards.sum(dtype=np.float64)))
        self.any_success += bool(episode.success.any())
        self.last_success += bool(episode.success[-1])

    def summary(self) -> dict[str, Any]:
        returns = np.array(self.returns or [0.0])
        return {
            "episodes": len(self.returns),
            "steps": self.moments.count,
            "return_mean": float(returns.mean()),
            "return_quantiles": np.quantile(returns, QUANTILES).tolist(),
            "success_rate": self.any_success / max(len(self.returns), 1),
            "success_last_rate": self.last_success / max(len(self.returns), 1),
            "observation_mean": self.moments.mean.tolist(),
            "observation_std": self.moments.std.tolist(),
        }


def _describe(path: Path, shape: tuple[int, ...]) -> dict[str, Any]:
    return {"shape": list(shape), "bytes": path.stat().st_size, "sha256": sha256(path)}
