"""Recorded episodes on disk: flat columns that are memory-mapped, an episode index and a manifest.

A store is a folder. `manifest.json` is written last: a folder without it is not a store, whatever else lies in it.

| file | dtype, shape | content |
|---|---|---|
| `observations.npy` | float32 `[S+E, O]` | every episode has one row more than it has steps: its last successor |
| `actions.npy` | float32 `[S, A]` | as executed, in [-1, 1] |
| `rewards.npy`, `returns_to_go.npy` | float32 `[S]` | undiscounted, unscaled |
| `success.npy`, `terminated.npy`, `truncated.npy` | bool `[S]` | flags of each step |
| `episodes.npy` | `EPISODE_DTYPE` `[E]` | task, length, goal, seed and noise of each episode |

S steps, E episodes, O and A the dimensions of observations and actions.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.files import read_json, write_atomically, write_json
from mtorl.datasets.statistics import QUANTILES, RunningMoments, pooled_moments, returns_to_go

SCHEMA = 1
STEP_COLUMNS = {
    "actions": "<f4",
    "rewards": "<f4",
    "returns_to_go": "<f4",
    "success": "|b1",
    "terminated": "|b1",
    "truncated": "|b1",
}
EPISODE_DTYPE = np.dtype(
    [("task", "<i4"), ("length", "<i8"), ("goal", "<i4"), ("seed", "<i8"), ("noise", "<f4"), ("random", "<f4")]
)
"""`goal`: index in the suite (-1: unknown); `noise`: standard deviation of the Gaussian noise on the actions;
`random`: probability that a block of steps took a uniform random action instead of the policy's."""


@dataclass(frozen=True)
class Episode:
    """One recorded run of one task.

    Attributes:
        task: Name of the task.
        observations: `[L+1, O]`; the last row is the successor of the last step.
        actions: `[L, A]` in [-1, 1].
        rewards: `[L]`, undiscounted, unscaled.
        success: `[L]`, the task's own success flag after each step.
        terminated: `[L]`, the environment ended the episode here.
        truncated: `[L]`, the time limit (or the recorder) ended it here.
        goal: Index of the goal in the suite, -1 if unknown.
        seed: What the recorder's random stream was derived from.
        noise: Standard deviation of Gaussian noise on the actions.
        random: Probability of a block of random actions.
    """

    task: str
    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    success: NDArray[np.bool_]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    goal: int = -1
    seed: int = 0
    noise: float = 0.0
    random: float = 0.0

    def __len__(self) -> int:
        return len(self.actions)

    def check(self) -> None:
        """Raises InputError if lengths disagree, a number is not finite or an action leaves [-1, 1]."""
        length = len(self.actions)
        if not length:
            raise InputError(f"an episode of {self.task} has no steps; expected at least one.")
        for name in ("rewards", "success", "terminated", "truncated"):
            if len(getattr(self, name)) != length:
                raise InputError(
                    f"an episode of {self.task} has {length} actions but {len(getattr(self, name))} {name}; "
                    "expected one each per step."
                )
        if len(self.observations) != length + 1:
            raise InputError(
                f"an episode of {self.task} has {length} actions and {len(self.observations)} observations; "
                f"expected {length + 1}: the last step needs its successor."
            )
        check_values(self.task, observations=self.observations, actions=self.actions, rewards=self.rewards)


def check_values(where: str, **columns: NDArray[np.float32]) -> None:
    """Raises InputError if a column holds a number that is not finite, or an action outside [-1, 1]."""
    for name, values in columns.items():
        if not np.isfinite(values).all():
            raise InputError(f"{name} of {where} hold NaN or infinity; expected finite numbers. Record it again.")
        if name == "actions" and len(values) and np.abs(values).max() > 1:
            raise InputError(
                f"actions of {where} reach {np.abs(values).max():.3g}; expected [-1, 1]. Clip or rescale them first."
            )


@dataclass(frozen=True)
class DataSpec:
    """What an agent must know of its data to be built; saved with every run, so that evaluation needs no data set.

    Attributes:
        task_names: The T tasks, in the suite's order.
        observation_dim: O.
        action_dim: A.
        horizon: Steps of the longest possible episode.
        suite: How to build the suite with these tasks again: `class_path` and `init_args`.
        steps: `[T]`, recorded steps of each task.
        episodes: `[T]`, recorded episodes of each task.
        observation_mean: `[T, O]`.
        observation_std: `[T, O]`, population standard deviation.
        return_quantiles: `[T, 21]`, quantiles 0, 0.05, ... 1 of each task's undiscounted episode returns.
        success_rate: `[T]`, share of recorded episodes with success at any step.
        success_last_rate: `[T]`, the same at the last step.
        data: Where it came from: path, sha256 of the manifest, suite and recipe of each store.
    """

    task_names: tuple[str, ...]
    observation_dim: int
    action_dim: int
    horizon: int
    suite: dict[str, Any]
    steps: tuple[int, ...]
    episodes: tuple[int, ...]
    observation_mean: tuple[tuple[float, ...], ...]
    observation_std: tuple[tuple[float, ...], ...]
    return_quantiles: tuple[tuple[float, ...], ...]
    success_rate: tuple[float, ...]
    success_last_rate: tuple[float, ...]
    data: tuple[dict[str, Any], ...] = field(default=())

    def normaliser(self, per_task: bool, floor: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation for z-scores.

        Args:
            per_task: One pair per task instead of one for all.
            floor: Smallest standard deviation: some dimensions never move, and 1/0 would blow up the first time
                one does.

        Returns:
            Two arrays `[T, O]`; with `per_task=False` all rows are equal.
        """
        means, stds = np.array(self.observation_mean), np.array(self.observation_std)
        if not per_task:
            mean, std = pooled_moments(self.steps, means, stds)
            means, stds = np.broadcast_to(mean, means.shape), np.broadcast_to(std, stds.shape)
        return means.astype(np.float32), np.maximum(stds, floor).astype(np.float32)

    def return_quantile(self, quantile: float) -> NDArray[np.float32]:
        """That quantile of each task's episode returns, `[T]`, interpolated between the stored ones."""
        return np.array([np.interp(quantile, QUANTILES, row) for row in self.return_quantiles], dtype=np.float32)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "DataSpec":
        """The inverse of `to_json`."""

        def freeze(value: Any) -> Any:
            return tuple(freeze(item) for item in value) if isinstance(value, list) else value

        try:
            return cls(**{name: freeze(value) for name, value in content.items()})
        except TypeError as error:
            raise InputError(f"a stored data specification does not fit this version: {error}.") from None


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
            raise InputError(
                f"could not write {self.path}: {error.strerror}. Free some space and run again."
            ) from error

    def seal(self, path: Path, shape: tuple[int, ...]) -> dict[str, Any]:
        try:
            self._file.close()
        except OSError as error:
            raise InputError(
                f"could not write {self.path}: {error.strerror}. Free some space and run again."
            ) from error

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


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class EpisodeStore:
    """A folder of recorded episodes, opened as memory maps: opening costs milliseconds and no memory.

    Args:
        path: The folder.

    Raises:
        InputError: No complete store is there, it was made by a newer version, or a column has the wrong size.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not (self.path / "manifest.json").exists():
            started = (self.path / "collect.json").exists()
            raise InputError(
                f"no data set in {self.path}: expected a file manifest.json there. "
                + (
                    "A collection was started and not finished: run the same `mtorl collect` again, it continues."
                    if started
                    else "Make one with `mtorl collect --out`, or check the path."
                )
            )
        self.manifest = read_json(self.path / "manifest.json", "data set manifest")
        expected = ("schema", "suite", "task_names", "observation_dim", "action_dim", "horizon", "versions", "source")
        found = self.manifest if isinstance(self.manifest, dict) else {}
        missing = [key for key in (*expected, "tasks", "columns") if key not in found]
        if missing:
            raise InputError(f"data set {self.path}: its manifest.json lacks {missing}. Collect the data again.")
        if self.manifest["schema"] > SCHEMA:
            raise InputError(
                f"data set {self.path} has schema {self.manifest['schema']}; this version of mtorl reads up to "
                f"{SCHEMA}. Upgrade mtorl, or collect the data again."
            )
        self.task_names: tuple[str, ...] = tuple(self.manifest["task_names"])
        self.observation_dim: int = self.manifest["observation_dim"]
        self.action_dim: int = self.manifest["action_dim"]
        self.observations = self._open("observations")
        self.actions = self._open("actions")
        self.rewards = self._open("rewards")
        self.returns_to_go = self._open("returns_to_go")
        self.success = self._open("success")
        self.terminated = self._open("terminated")
        self.truncated = self._open("truncated")
        self.index = self._open("episodes")
        shapes = (self.observations.shape[1:], self.actions.shape[1:])
        if shapes != ((self.observation_dim,), (self.action_dim,)):
            raise InputError(
                f"data set {self.path}: the manifest gives dimensions {self.observation_dim} and {self.action_dim}, "
                f"the columns have {shapes[0]} and {shapes[1]}. Copy or collect the data again."
            )
        self.starts = np.concatenate([[0], np.cumsum(self.index["length"])]).astype(np.int64)
        if len(self.actions) != self.starts[-1] or len(self.observations) != self.starts[-1] + len(self.index):
            raise InputError(
                f"data set {self.path}: the episode index counts {self.starts[-1]} steps, the columns hold "
                f"{len(self.actions)} actions and {len(self.observations)} observations. Collect the data again."
            )

    def _open(self, name: str) -> NDArray[Any]:
        path, expected = self.path / f"{name}.npy", self.manifest["columns"][name]
        if not path.exists():
            raise InputError(f"data set {self.path}: the column {path.name} is missing. Collect the data again.")
        if path.stat().st_size != expected["bytes"]:
            raise InputError(
                f"data set {self.path}: {path.name} has {path.stat().st_size} bytes, expected {expected['bytes']}; it "
                "was cut off or replaced. Copy or collect the data again."
            )
        try:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError as error:
            raise InputError(f"data set {self.path}: {path.name} cannot be read as a column: {error}.") from None
        if list(values.shape) != expected["shape"]:
            raise InputError(
                f"data set {self.path}: {path.name} has shape {list(values.shape)}, expected {expected['shape']}."
            )
        return np.asarray(values)

    def __len__(self) -> int:
        return len(self.index)

    def episode(self, number: int) -> Episode:
        """The episode with that number; its arrays are views into the memory maps."""
        row, start, stop = self.index[number], self.starts[number], self.starts[number + 1]
        steps = slice(start, stop)
        return Episode(
            task=self.task_names[row["task"]],
            observations=self.observations[start + number : stop + number + 1],
            actions=self.actions[steps],
            rewards=self.rewards[steps],
            success=self.success[steps],
            terminated=self.terminated[steps],
            truncated=self.truncated[steps],
            goal=int(row["goal"]),
            seed=int(row["seed"]),
            noise=float(row["noise"]),
            random=float(row["random"]),
        )

    def __iter__(self) -> Iterator[Episode]:
        return (self.episode(number) for number in range(len(self)))

    def verify(self) -> None:
        """Reads everything once: hashes of all columns, finite numbers, actions in [-1, 1].

        Raises:
            InputError: Names the column that differs.
        """
        for name, expected in self.manifest["columns"].items():
            found = sha256(self.path / f"{name}.npy")
            if found != expected["sha256"]:
                raise InputError(
                    f"data set {self.path}: {name}.npy has sha256 {found[:12]}..., the manifest says "
                    f"{expected['sha256'][:12]}...; the file was changed. Copy or collect the data again."
                )
        for start in range(0, len(self.observations), 1 << 18):
            rows = slice(start, start + (1 << 18))
            check_values(
                f"data set {self.path}",
                observations=self.observations[rows],
                actions=self.actions[rows],
                rewards=self.rewards[rows],
            )


def open_stores(paths: Sequence[Path | str]) -> list[EpisodeStore]:
    """Opens stores that are to be used together.

    Raises:
        InputError: Suites, their settings, versions or dimensions differ.
    """
    if not paths:
        raise InputError("no data set was given; expected at least one folder made by `mtorl collect`.")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise InputError(f"a data set is given twice in {[str(path) for path in paths]}; expected each once.")
    stores = [EpisodeStore(path) for path in paths]
    first = stores[0]
    for store in stores[1:]:
        for name, ours, theirs in (
            ("suite", first.manifest["suite"]["class_path"], store.manifest["suite"]["class_path"]),
            ("suite settings", _settings(first), _settings(store)),
            ("versions", first.manifest["versions"], store.manifest["versions"]),
            ("observation dimension", first.observation_dim, store.observation_dim),
            ("action dimension", first.action_dim, store.action_dim),
        ):
            if ours != theirs:
                raise InputError(
                    f"data sets {first.path} and {store.path} cannot be joined: {name} {ours} and {theirs} differ."
                )
    return stores


def _settings(store: EpisodeStore) -> dict[str, Any]:
    """The suite's arguments that change what an episode is; which tasks were recorded does not."""
    arguments = store.manifest["suite"]["init_args"]
    return {key: value for key, value in arguments.items() if key not in ("benchmark", "tasks", "fast")}


def describe_stores(stores: Sequence[EpisodeStore], tasks: Sequence[str] | None = None) -> DataSpec:
    """What agents must know of these stores together.

    Args:
        stores: From `open_stores`.
        tasks: Use only these tasks; all of them by default, those of the first store first.

    Raises:
        InputError: A task is unknown or has no episodes.
    """
    names = list(dict.fromkeys(name for store in stores for name in store.task_names))
    unknown = [name for name in tasks or () if name not in names]
    if unknown:
        raise InputError(f"unknown tasks {unknown}; the data set holds {names}.")
    chosen = [name for name in names if tasks is None or name in tasks]
    rows = [_join_task(stores, name) for name in chosen]
    manifest = stores[0].manifest
    return DataSpec(
        task_names=tuple(chosen),
        observation_dim=stores[0].observation_dim,
        action_dim=stores[0].action_dim,
        horizon=max(store.manifest["horizon"] for store in stores),
        suite={**manifest["suite"], "init_args": {**manifest["suite"]["init_args"], "tasks": chosen}},
        data=tuple(
            {
                "path": str(store.path),
                "sha256": sha256(store.path / "manifest.json"),
                "suite": store.manifest["suite"],
                "source": store.manifest["source"],
            }
            for store in stores
        ),
        **{key: tuple(row[key] for row in rows) for key in rows[0]},
    )


def _join_task(stores: Sequence[EpisodeStore], name: str) -> dict[str, Any]:
    parts = [entry for store in stores for entry in store.manifest["tasks"] if entry["name"] == name]
    parts = [entry for entry in parts if entry["episodes"]]
    if not parts:
        raise InputError(f"the data set has no episodes of {name}. Collect some, or leave the task out with --tasks.")
    episodes, steps = [p["episodes"] for p in parts], [p["steps"] for p in parts]
    mean, std = pooled_moments(
        steps, np.array([p["observation_mean"] for p in parts]), np.array([p["observation_std"] for p in parts])
    )
    returns = np.concatenate(
        [
            store.returns_to_go[store.starts[:-1][store.index["task"] == store.task_names.index(name)]]
            for store in stores
            if name in store.task_names
        ]
    )
    return {
        "steps": sum(steps),
        "episodes": sum(episodes),
        "observation_mean": tuple(mean.tolist()),
        "observation_std": tuple(std.tolist()),
        "return_quantiles": tuple(np.quantile(returns.astype(np.float64), QUANTILES).tolist()),
        "success_rate": float(np.average([p["success_rate"] for p in parts], weights=episodes)),
        "success_last_rate": float(np.average([p["success_last_rate"] for p in parts], weights=episodes)),
    }
