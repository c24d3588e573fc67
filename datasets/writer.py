"""Writes episodes into a new store, column by column, in bounded memory."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mtorl import InputError, schema
from mtorl.datasets.card import Card
from mtorl.datasets.episode import EPISODE_DTYPE, STEP_COLUMNS, Episode
from mtorl.datasets.statistics import TaskTally, returns_to_go
from mtorl.datasets.store import HEAD, SCHEMA
from mtorl.files import refused_write, sha256, write_atomically, write_json
from mtorl.schema import Document


class StoreWriter:
    """Writes episodes into a new store, one column file after the other, in bounded memory.

    Args:
        path: Folder of the store.
        suite: `class_path` and `init_args` of the suite.
        task_names: Names of all tasks, in order.
        dimensions: O and A.
        horizon: Steps of the longest possible episode; None: of the longest that is written.
        versions: Versions of the simulator and its packages.
        source: Recipe and arguments that made the episodes.
        card: Where the episodes are from; None: nothing beyond the rest is known.
        returns_only: Names of the tasks without a success flag.
        own_dimensions: Observation and action dimension of each task, where the rest of O and A is padding; None: no
            task has any.
        parents: The data sets that it was made from.

    Raises:
        InputError: One of them is not what a manifest may hold.
    """

    def __init__(
        self,
        path: Path,
        suite: dict[str, Any],
        task_names: Sequence[str],
        dimensions: tuple[int, int],
        horizon: int | None,
        versions: dict[str, str],
        source: dict[str, Any],
        card: Card | None = None,
        returns_only: Sequence[str] = (),
        own_dimensions: Sequence[tuple[int, int]] | None = None,
        parents: Sequence[Document] = (),
    ) -> None:
        self.path, self.horizon = path, horizon
        self.task_names = tuple(task_names)
        self.observation_dim, self.action_dim = dimensions
        self._head: dict[str, Any] = {
            "schema": SCHEMA,
            "suite": suite,
            "task_names": list(task_names),
            "observation_dim": self.observation_dim,
            "action_dim": self.action_dim,
            "horizon": horizon or 1,
            "versions": versions,
            "source": source,
            "parents": list(parents),
        }
        optional = {
            "card": card.plain() if card else None,
            "returns_only": list(returns_only),
            "own_dimensions": None if own_dimensions is None else [list(sizes) for sizes in own_dimensions],
        }
        self._head |= {name: value for name, value in optional.items() if value}
        schema.check(self._head, HEAD, f"what is to be written about {path}", "Correct it.")

    def write(self, episodes: Iterable[Episode]) -> None:
        """Writes all columns, then the manifest.

        Args:
            episodes: In the order in which they are to be stored; consumed once.

        Raises:
            InputError: An episode is malformed, there is none, or the file system refuses to write.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        raw = {
            name: _ColumnFile(self.path / f".{name}.raw", dtype)
            for name, dtype in {"observations": "<f4", **STEP_COLUMNS}.items()
        }
        tallies = {name: TaskTally(self.observation_dim) for name in self.task_names}
        rows = []
        try:
            for recorded in episodes:
                episode = self._checked(recorded)
                rows.append(self._append(episode, raw))
                tallies[episode.task].add(episode.observations, episode.rewards, episode.success)
            if not rows:
                raise InputError(f"no episodes were given for {self.path}; expected at least one.")
            index = np.array(rows, dtype=EPISODE_DTYPE)
            steps = int(index["length"].sum())
            shapes = {"observations": (steps + len(index), self.observation_dim), "actions": (steps, self.action_dim)}
            columns = {
                name: column.seal(self.path / f"{name}.npy", shapes.get(name, (steps,))) for name, column in raw.items()
            }
        finally:
            for column in raw.values():
                column.discard()
        write_atomically(self.path / "episodes.npy", lambda file: npy.write_array(file, index, allow_pickle=False))
        columns["episodes"] = _describe(self.path / "episodes.npy", index.shape)
        tasks = [{"name": name} | tally.summary() for name, tally in tallies.items()]
        counts = {"episodes": len(index), "steps": steps}
        counts["horizon"] = self.horizon or int(index["length"].max())
        write_json(self.path / "manifest.json", self._head | counts | {"tasks": tasks, "columns": columns})

    def _append(self, episode: Episode, raw: dict[str, "_ColumnFile"]) -> tuple[Any, ...]:
        """Adds an episode's steps to the columns; returns its row of the index."""
        raw["observations"].append(episode.observations)
        raw["returns_to_go"].append(_returns_to_go(episode))
        for name in ("actions", "rewards", "success", "terminated", "truncated"):
            raw[name].append(getattr(episode, name))
        task = self.task_names.index(episode.task)
        return task, len(episode), episode.goal, episode.seed, episode.noise, episode.random

    def _checked(self, episode: Episode) -> Episode:
        if episode.task not in self.task_names:
            raise InputError(f"an episode names the task {episode.task!r}; expected one of {list(self.task_names)}.")
        episode = episode.checked(self.observation_dim, self.action_dim)
        if self.horizon is not None and len(episode) > self.horizon:
            raise InputError(
                f"an episode of {episode.task} has {len(episode)} steps, more than the horizon of {self.horizon} that "
                "the data set states. Cut it, or state a larger horizon."
            )
        self._check_claims(episode)
        return episode

    def _check_claims(self, episode: Episode) -> None:
        """Raises InputError for a success where the data are said to know none, and for values in what is padding."""
        if episode.task in self._head.get("returns_only", ()) and episode.success.any():
            step = int(episode.success.argmax())
            raise InputError(
                f"an episode of {episode.task} has a success at step {step}, but its task is among those whose data "
                "know no success. Leave it out of returns_only, or the flags out."
            )
        if "own_dimensions" in self._head:
            sizes = self._head["own_dimensions"][self.task_names.index(episode.task)]
            for values, size, name in zip((episode.observations, episode.actions), sizes, _PADDED, strict=True):
                if values[:, size:].any():
                    raise InputError(
                        f"{name} of an episode of {episode.task} are not zero beyond the {size} dimensions of its own; "
                        "expected padding there. Set it to zero, or state more dimensions."
                    )


_PADDED = ("observations", "actions")


def _returns_to_go(episode: Episode) -> NDArray[np.float32]:
    returns = returns_to_go(episode.rewards)
    if not np.isfinite(returns).all():
        raise InputError(
            f"the rewards of an episode of {episode.task} sum to more than single precision can hold; expected "
            "finite returns. Rescale the rewards."
        )
    return returns


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


def _describe(path: Path, shape: tuple[int, ...]) -> Document:
    return {"shape": list(shape), "bytes": path.stat().st_size, "sha256": sha256(path)}
