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

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.files import check_schema, interpreting, read_json

SCHEMA = 1
STEP_COLUMNS = {
    "actions": "<f4",
    "rewards": "<f4",
    "returns_to_go": "<f4",
    "success": "|b1",
    "terminated": "|b1",
    "truncated": "|b1",
}
MANIFEST = {
    "suite": dict,
    "task_names": list,
    "observation_dim": int,
    "action_dim": int,
    "horizon": int,
    "versions": dict,
    "source": dict,
    "tasks": list,
    "columns": dict,
}
"""What a manifest must hold besides its schema number, and of which type."""
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
        what = f"data set {self.path}: its manifest.json"
        check_schema(self.manifest, SCHEMA, what)
        with interpreting(what):
            self._interpret()

    def _interpret(self) -> None:
        missing = [key for key in MANIFEST if key not in self.manifest]
        if missing:
            raise InputError(f"data set {self.path}: its manifest.json lacks {missing}. Collect the data again.")
        odd = [key for key, kind in MANIFEST.items() if not isinstance(self.manifest[key], kind)]
        if odd or not all(isinstance(name, str) for name in self.manifest["task_names"]):
            raise InputError(
                f"data set {self.path}: in its manifest.json, {odd or ['task_names']} have an unexpected type. Collect "
                "the data again."
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
