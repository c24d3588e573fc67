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

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.card import CARD, Card
from mtorl.datasets.episode import EPISODE_DTYPE, STEP_COLUMNS, Episode, as_flags, as_numbers
from mtorl.datasets.statistics import QUANTILES
from mtorl.datasets.verification import verify_episodes
from mtorl.files import read_json, regular, sha256
from mtorl.schema import Integer, ListOf, MappingOf, Names, Number, Plain, Record, Text, check, check_version

__all__ = ["EPISODE_DTYPE", "STEP_COLUMNS", "Episode", "EpisodeStore", "sha256"]
SCHEMA = 1
COLUMNS: dict[str, Any] = {"observations": "<f4", **STEP_COLUMNS, "episodes": EPISODE_DTYPE}
"""The dtype of every column."""
SUITE: Record = Record({"class_path": Text(), "init_args": MappingOf(Plain())})
"""What `Suite.describe` gives."""
TASK = Record(
    {
        "name": Text(),
        "episodes": Integer(0),
        "steps": Integer(0),
        "return_mean": Number(),
        "return_quantiles": ListOf(Number(), len(QUANTILES)),
        "success_rate": Number(0, 1),
        "success_last_rate": Number(0, 1),
        "observation_mean": ListOf(Number(), "O"),
        "observation_std": ListOf(Number(0), "O"),
    }
)
HEAD = Record(
    {
        "schema": Integer(1),
        "suite": SUITE,
        "task_names": Names("T"),
        "observation_dim": Integer(1),
        "action_dim": Integer(1),
        "horizon": Integer(1),
        "versions": MappingOf(Plain()),
        "source": MappingOf(Plain()),
    },
    optional={
        "parents": ListOf(Plain()),
        "card": CARD,
        "returns_only": ListOf(Text()),
        "own_dimensions": ListOf(ListOf(Integer(1), 2), "T"),
    },
)
"""What a manifest says before there are episodes."""
COLUMN = Record({"shape": ListOf(Integer(0), least=1), "bytes": Integer(0), "sha256": Text()})
MANIFEST = Record(
    {**HEAD.fields, "tasks": ListOf(TASK, "T"), "columns": Record(dict.fromkeys(COLUMNS, COLUMN))},
    optional={**HEAD.optional, "episodes": Integer(1), "steps": Integer(1)},
)
REMEDY = "Copy or collect the data again."


class EpisodeStore:
    """A folder of recorded episodes, opened as memory maps: opening costs milliseconds and no memory.

    Args:
        path: The folder.

    Attributes:
        suite: How to build the suite that it was recorded in: `class_path` and `init_args`.

    Raises:
        InputError: No complete store is there, it was made by a newer version, a column has the wrong size, or the
            manifest, the index and the columns disagree.
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
        what = f"data set {self.path}: its manifest.json"
        self.manifest = read_json(self.path / "manifest.json", "data set manifest")
        check_version(self.manifest, SCHEMA, what)
        check(self.manifest, MANIFEST, what, REMEDY)
        self.suite: dict[str, Any] = self.manifest["suite"]
        self.task_names: tuple[str, ...] = tuple(self.manifest["task_names"])
        self.observation_dim: int = self.manifest["observation_dim"]
        self.action_dim: int = self.manifest["action_dim"]
        self.returns_only: tuple[str, ...] = tuple(self.manifest.get("returns_only", ()))
        self.own_dimensions: list[list[int]] | None = self.manifest.get("own_dimensions")
        self.observations = self._open("observations")
        self.actions = self._open("actions")
        self.rewards = self._open("rewards")
        self.returns_to_go = self._open("returns_to_go")
        self.success = self._open("success")
        self.terminated = self._open("terminated")
        self.truncated = self._open("truncated")
        self.index = self._open("episodes")
        self._check_index()
        self.starts = np.concatenate([[0], np.cumsum(self.index["length"])]).astype(np.int64)
        self._check_shapes()
        self._check_tasks()

    def _open(self, name: str) -> NDArray[Any]:
        path, expected = self.path / f"{name}.npy", self.manifest["columns"][name]
        if not path.exists():
            raise InputError(f"data set {self.path}: the column {path.name} is missing. Collect the data again.")
        size = regular(path, "the column").stat().st_size
        if size != expected["bytes"]:
            raise InputError(
                f"data set {self.path}: {path.name} has {size} bytes, expected {expected['bytes']}; it was cut off or "
                f"replaced. {REMEDY}"
            )
        try:
            values = np.asarray(npy.open_memmap(path, mode="r"))
        except (ValueError, TypeError, OverflowError, EOFError, OSError) as error:
            raise InputError(f"data set {self.path}: {path.name} cannot be read as a column: {error}.") from None
        if list(values.shape) != expected["shape"]:
            raise InputError(
                f"data set {self.path}: {path.name} has shape {list(values.shape)}, expected {expected['shape']}."
            )
        return self._converted(name, values)

    def _converted(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """A column in the dtype that the rest of the program counts on; says so where it had another."""
        expected: np.dtype[Any] = np.dtype(COLUMNS[name])
        if values.dtype == expected:
            return values
        if values.dtype.kind not in "biuf" or expected == EPISODE_DTYPE:
            raise InputError(f"data set {self.path}: {name}.npy holds {values.dtype}; expected {expected}. {REMEDY}")
        warnings.warn(
            f"data set {self.path}: {name}.npy holds {values.dtype}, expected {expected}; it is converted, in memory. "
            "Write the data set again with StoreWriter.",
            stacklevel=4,
        )
        where = f"the values of {self.path / name}.npy"
        return as_flags(values, where) if expected == np.bool_ else as_numbers(values, where)

    def _check_index(self) -> None:
        """Raises InputError if the index names a task that there is not, or an episode without steps."""
        if self.index.ndim != 1:
            raise InputError(
                f"data set {self.path}: episodes.npy has shape {self.index.shape}; expected one axis. {REMEDY}"
            )
        for field, least, most in (
            ("task", 0, len(self.task_names) - 1),
            ("length", 1, len(self.actions)),
            ("goal", -1, np.iinfo(np.int32).max),
            ("noise", 0, np.inf),
            ("random", 0, 1),
        ):
            values = self.index[field]
            odd = np.flatnonzero(~((values >= least) & (values <= most)))
            if odd.size:
                raise InputError(
                    f"data set {self.path}: episodes.npy gives episode {odd[0]} the {field} {values[odd[0]]}; expected "
                    f"{least} to {most}. {REMEDY}"
                )

    def _check_shapes(self) -> None:
        """Raises InputError if columns, index and manifest disagree about dimensions or counts."""
        shapes = (self.observations.shape[1:], self.actions.shape[1:])
        if shapes != ((self.observation_dim,), (self.action_dim,)):
            raise InputError(
                f"data set {self.path}: the manifest gives dimensions {self.observation_dim} and {self.action_dim}, "
                f"the columns have {shapes[0]} and {shapes[1]}. {REMEDY}"
            )
        steps, episodes = int(self.starts[-1]), len(self.index)
        if len(self.actions) != steps or len(self.observations) != steps + episodes:
            raise InputError(
                f"data set {self.path}: the episode index counts {steps} steps, the columns hold {len(self.actions)} "
                f"actions and {len(self.observations)} observations. {REMEDY}"
            )
        for name in ("rewards", "returns_to_go", "success", "terminated", "truncated"):
            if getattr(self, name).shape != (steps,):
                raise InputError(
                    f"data set {self.path}: {name}.npy has shape {getattr(self, name).shape}; expected ({steps},), one "
                    f"each per step. {REMEDY}"
                )

    def _check_tasks(self) -> None:
        """Raises InputError if what the manifest says of tasks cannot be said of these episodes; reads little."""
        tasks, lengths = self.index["task"], self.index["length"]
        episodes = np.bincount(tasks, minlength=len(self.task_names))
        steps = np.bincount(tasks, lengths, minlength=len(self.task_names)).astype(int)
        claims: list[tuple[str, Any, Any]] = [
            (f"tasks[{place}].{key}", entry[key], counted)
            for place, entry in enumerate(self.manifest["tasks"])
            for key, counted in (
                ("name", self.task_names[place]),
                ("episodes", int(episodes[place])),
                ("steps", int(steps[place])),
            )
        ]
        moments = self.manifest["tasks"][0]["observation_mean"]  # all are equally long
        claims.append(("the length of tasks[0].observation_mean", len(moments), self.observation_dim))
        totals = {"episodes": len(self.index), "steps": int(lengths.sum())}
        claims += [(key, self.manifest[key], total) for key, total in totals.items() if key in self.manifest]
        for field, claimed, counted in claims:
            if claimed != counted:
                raise InputError(
                    f"data set {self.path}: its manifest.json says {claimed!r} for {field}; the episodes and task "
                    f"names say {counted!r}. {REMEDY}"
                )
        if not np.isfinite(self.returns).all():
            raise InputError(
                f"data set {self.path}: returns_to_go.npy holds NaN or infinity: it does not fit the data. {REMEDY}"
            )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def card(self) -> Card:
        """Where the episodes are from; of data sets that were made without a card, as far as their source says it."""
        return Card.of_manifest(self.manifest)

    @property
    def returns(self) -> NDArray[np.float32]:
        """The undiscounted return of each episode `[E]`."""
        return self.returns_to_go[self.starts[:-1]]

    def dimensions_of(self, task: str) -> tuple[int, int]:
        """Observation and action dimension of a task; beyond them its observations and actions are zero."""
        if self.own_dimensions is None:
            return self.observation_dim, self.action_dim
        observation, action = self.own_dimensions[self.task_names.index(task)]
        return observation, action

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
        """Reads everything once and recomputes what the store says of itself.

        Hashes of all columns; finite numbers, actions in [-1, 1], flags, no episode beyond the horizon; returns-to-go
        are the rewards' sums; the statistics of every task are those of its episodes; zeros beyond a task's own
        dimensions, no success in tasks that do not know it.

        Raises:
            InputError: Names what differs.
        """
        for name in COLUMNS:
            expected, found = self.manifest["columns"][name]["sha256"], sha256(self.path / f"{name}.npy")
            if found != expected:
                raise InputError(
                    f"data set {self.path}: {name}.npy has sha256 {found[:12]}..., the manifest says "
                    f"{expected[:12]}...; the file was changed. {REMEDY}"
                )
        pairs = zip(self, np.split(self.returns_to_go, self.starts[1:-1]), strict=True)
        verify_episodes(f"data set {self.path}", pairs, self.manifest)
