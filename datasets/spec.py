"""What agents must know of stores that are used together."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, earlier
from mtorl.datasets.card import CARD
from mtorl.datasets.episode import padded
from mtorl.datasets.joining import joined_suite
from mtorl.datasets.statistics import QUANTILES, pooled_moments
from mtorl.datasets.store import SUITE, EpisodeStore
from mtorl.files import sha256
from mtorl.schema import Document, Integer, Kind, ListOf, MappingOf, Names, Number, Plain, Record, Text, check

OF_ORIGIN: dict[str, Kind] = {"card": CARD, "parents": ListOf(Plain())}
"""What of a manifest is kept of each data set if it is there, for reports."""
SPECIFICATION = Record(
    {
        "task_names": Names("T"),
        "observation_dim": Integer(1, axis="O"),
        "action_dim": Integer(1),
        "horizon": Integer(1),
        "suite": SUITE,
        "steps": ListOf(Integer(1), "T"),
        "episodes": ListOf(Integer(1), "T"),
        "observation_mean": ListOf(ListOf(Number(), "O"), "T"),
        "observation_std": ListOf(ListOf(Number(0), "O"), "T"),
        "return_quantiles": ListOf(ListOf(Number(), len(QUANTILES)), "T"),
        "success_rate": ListOf(Number(0, 1), "T"),
        "success_last_rate": ListOf(Number(0, 1), "T"),
    },
    optional={
        "data": ListOf(
            Record(
                {"path": Text(), "sha256": Text()}, optional={"suite": SUITE, "source": MappingOf(Plain()), **OF_ORIGIN}
            )
        ),
        "groups": ListOf(Integer(0), "T"),
        "returns_only": ListOf(Text()),
        "own_dimensions": ListOf(ListOf(Integer(1), 2), "T"),
    },
    closed=True,
)
"""What a run's data_spec.json must hold; the first versions did not say the suite of each data set.

The rest of what is optional is there only where it says something.
"""


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
        data: Where it came from: path, sha256 of the manifest, suite, recipe, card and parents of each store.
        groups: `[T]`, the group of each task, from 0 without gaps; None: tasks are in no groups.
        returns_only: Names of the tasks whose data know no success. Whether policies are judged by it is for the suite
            in which they are played to say.
        own_dimensions: `[T, 2]`, the O and A of each task, beyond which it has zeros; None: all have the same.

    Raises:
        InputError: The groups are not one for each task, or leave numbers out.
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
    groups: tuple[int, ...] | None = None
    returns_only: tuple[str, ...] = ()
    own_dimensions: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        groups = self.groups
        if groups is not None and (
            len(groups) != len(self.task_names) or {*groups} != {*range(max(groups, default=-1) + 1)}
        ):
            raise InputError(
                f"groups is {list(groups)}; expected the group of each of {len(self.task_names)} tasks, numbered from "
                "0 without gaps."
            )

    @property
    def grouped(self) -> tuple[tuple[str, ...], ...]:
        """Names of the tasks of each group; none without groups."""
        if self.groups is None:
            return ()
        pairs = list(zip(self.task_names, self.groups, strict=True))
        return tuple(tuple(name for name, it in pairs if it == group) for group in range(max(self.groups) + 1))

    def normaliser(self, per_task: bool, floor: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation for z-scores.

        Args:
            per_task: One pair per task instead of one for all.
            floor: Smallest standard deviation: some dimensions never move, and 1/0 would blow up the first time
                one does.

        Returns:
            Two arrays `[T, O]`; with `per_task=False` all rows are equal, but for a task's padding, which has mean zero
            and the floor.
        """
        means, stds = np.array(self.observation_mean), np.array(self.observation_std)
        if not per_task:
            mean, std = self.pooled_moments()
            means, stds = np.broadcast_to(mean, means.shape), np.broadcast_to(std, stds.shape)
        if self.own_dimensions is not None:
            own = np.arange(self.observation_dim) < np.array(self.own_dimensions)[:, :1]
            means, stds = means * own, stds * own
        return means.astype(np.float32), np.maximum(stds, floor).astype(np.float32)

    def dimensions_of(self, task: int) -> tuple[int, int]:
        """Observation and action dimension of a task, beyond which it has zeros."""
        return self.own_dimensions[task] if self.own_dimensions else (self.observation_dim, self.action_dim)

    def pooled_moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation `[O]` of all tasks together, of each dimension over the tasks that have it."""
        sizes = None if self.own_dimensions is None else [size for size, _ in self.own_dimensions]
        return pooled_moments(self.steps, np.array(self.observation_mean), np.array(self.observation_std), sizes)

    def return_quantile(self, quantile: float) -> NDArray[np.float32]:
        """That quantile of each task's episode returns, `[T]`, interpolated between the stored ones."""
        return np.array([np.interp(quantile, QUANTILES, row) for row in self.return_quantiles], dtype=np.float32)

    def to_json(self) -> Document:
        """As plain JSON values; what is optional only if it says something."""
        optional = ("groups", "returns_only", "own_dimensions")
        return {name: value for name, value in asdict(self).items() if name not in optional or value}

    @classmethod
    def from_json(cls, content: Document) -> "DataSpec":
        """The inverse of `to_json`.

        Raises:
            InputError: A field is missing, or is not what a specification may hold.
        """
        check(content, SPECIFICATION, "the run's data specification data_spec.json")

        def freeze(value: Any) -> Any:
            return tuple(freeze(item) for item in value) if isinstance(value, list) else value

        return cls(**{name: freeze(value) for name, value in content.items()})


def describe_stores(
    stores: Sequence[EpisodeStore],
    tasks: Sequence[str] | None = None,
    pooled: bool = False,
    order: Sequence[str] | None = None,
    suite: Document | None = None,
) -> DataSpec:
    """What agents must know of these stores together.

    Args:
        stores: From `open_stores`.
        tasks: Use only these tasks; all of them by default.
        pooled: Give every task the observations' statistics of all tasks of the stores, used or not.
        order: The order of the tasks that are used; by default those of the first store first.
        suite: In which their tasks are played together; by default that of all of them, which is one.

    Raises:
        InputError: A task is unknown or has no episodes.
    """
    names = list(dict.fromkeys(name for store in stores for name in store.task_names))
    if tasks is not None and not tasks:
        raise InputError(f"the list of tasks is empty; expected some of {names}, or no list for all of them.")
    unknown = [name for name in tasks or () if name not in names]
    if unknown:
        raise InputError(f"unknown tasks {unknown}; the data set holds {names}.")
    chosen = [name for name in order or names if tasks is None or name in tasks]
    suite = suite or joined_suite([store.suite for store in stores])
    spec = _describe(stores, chosen, suite)
    return _with_statistics_of(_describe(stores, names, suite), spec) if pooled else spec


def _with_statistics_of(everything: DataSpec, spec: DataSpec) -> DataSpec:
    """A specification whose tasks all have the moments of another one's tasks together."""
    mean, std = (tuple(values.tolist()) for values in everything.pooled_moments())
    count = len(spec.task_names)
    return replace(spec, observation_mean=(mean,) * count, observation_std=(std,) * count)


def _describe(stores: Sequence[EpisodeStore], chosen: Sequence[str], suite: Document) -> DataSpec:
    rows = [_join_task(stores, name) for name in chosen]
    return DataSpec(
        task_names=tuple(chosen),
        observation_dim=max(store.observation_dim for store in stores),
        action_dim=max(store.action_dim for store in stores),
        horizon=max(max(store.manifest["horizon"], int(store.index["length"].max())) for store in stores),
        suite={**suite, "init_args": {**suite["init_args"], "tasks": chosen}},
        data=tuple(
            {
                "path": str(store.path),
                "sha256": sha256(store.path / "manifest.json"),
                "suite": store.suite,
                "source": store.manifest["source"],
                **{name: store.manifest[name] for name in OF_ORIGIN if store.manifest.get(name)},
            }
            for store in stores
        ),
        returns_only=tuple(name for name in chosen if any(name in it.returns_only for it in stores)),
        own_dimensions=_own_dimensions(stores, chosen),
        **{key: tuple(row[key] for row in rows) for key in rows[0]},
    )


def _own_dimensions(stores: Sequence[EpisodeStore], chosen: Sequence[str]) -> tuple[tuple[int, int], ...] | None:
    """The dimensions of each task, if some of them have padding behind them."""
    known = {name: store.dimensions_of(name) for store in stores for name in store.task_names}
    widest = max(store.observation_dim for store in stores), max(store.action_dim for store in stores)
    return tuple(known[name] for name in chosen) if {known[name] for name in chosen} != {widest} else None


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
            store.returns[store.index["task"] == store.task_names.index(name)]
            for store in stores
            if name in store.task_names
        ]
    )
    width = max(store.observation_dim for store in stores)
    return {
        "steps": sum(steps),
        "episodes": sum(episodes),
        "observation_mean": tuple(padded(mean, width).tolist()),
        "observation_std": tuple(padded(std, width).tolist()),
        "return_quantiles": tuple(np.quantile(returns.astype(np.float64), QUANTILES).tolist()),
        "success_rate": float(np.average([p["success_rate"] for p in parts], weights=episodes)),
        "success_last_rate": float(np.average([p["success_last_rate"] for p in parts], weights=episodes)),
    }


__getattr__ = earlier.lookup(__name__)
