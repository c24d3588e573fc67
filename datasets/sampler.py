"""Windows of consecutive steps, the same number for every task of a batch."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.episode import padded
from mtorl.datasets.prompts import PromptPool, PromptSettings
from mtorl.datasets.shares import SourceShares, check_shares
from mtorl.datasets.store import EpisodeStore
from mtorl.datasets.turns import TaskOrder, TaskTurns
from mtorl.schema import State

__all__ = ["SamplingSettings", "TaskBatch", "TaskSampler"]


@dataclass(frozen=True)
class SamplingSettings:
    """Which recorded steps windows begin at.

    Attributes:
        top: Of each task's episodes only this share, those with the highest returns: with 0.1 the best tenth, at least
            one.
        unit: Every step of a task is as likely (step), or every episode, and then every step of it (episode).
        until: Use episodes to their end, or to their first success (success); those without are whole.
    """

    top: float = 1.0
    unit: Literal["step", "episode"] = "step"
    until: Literal["end", "success"] = "end"

    def __post_init__(self) -> None:
        checks.within("(0, 1]", top=self.top)
        checks.one_of("unit", self.unit, ("step", "episode"))
        checks.one_of("until", self.until, ("end", "success"))


class TaskSampler:
    """Draws windows over the recorded steps of each task.

    A window starts at a drawn step, by default a uniformly drawn one (so long episodes are drawn more often), and runs
    for `length` steps; one that would leave its episode is padded at its end. Nothing but the columns' memory maps is
    read, so memory does not grow with the data.

    Args:
        stores: Data sets that are used together, from `open_stores`; windows of those with fewer dimensions have zeros
            behind them.
        task_names: The tasks to draw, in the order of their ids.
        windows: B, windows per task and batch.
        length: L, steps per window.
        generator: Source of all draws; its state is part of a checkpoint.
        tasks_per_batch: Tasks in one batch, at most. HarmoDT's published schedule is 1.
        order: Which tasks come into a batch; see `TaskTurns`, also for how many by default.
        next_observations: Also return every step's successor, and whether it is the end.
        prompts: Also return a prompt for every window.
        sampling: Which steps windows begin at.
        groups: `[T]`, the group of each task, from 0 without gaps.
        shares: Of each data set in every task's windows; by default their steps, or episodes, are as likely. The best
            episodes (`SamplingSettings.top`) are then those of each data set.

    Raises:
        InputError: There are not so many tasks, they are in no groups, or have no episodes; or shares are not one for
            each data set.
    """

    def __init__(
        self,
        stores: Sequence[EpisodeStore],
        task_names: Sequence[str],
        windows: int,
        length: int,
        generator: np.random.Generator,
        tasks_per_batch: int | None = None,
        order: TaskOrder = "random",
        next_observations: bool = False,
        prompts: PromptSettings | None = None,
        sampling: SamplingSettings | None = None,
        groups: Sequence[int] | None = None,
        shares: Sequence[float] | None = None,
    ) -> None:
        checks.at_least(1, windows=windows, length=length)
        self.stores, self.task_names = list(stores), tuple(task_names)
        self.windows, self.length = windows, length
        self._turns = TaskTurns(len(self.task_names), tasks_per_batch, order, groups)
        self.next_observations = next_observations
        self._pool = PromptPool(stores, task_names, prompts) if prompts else None
        self.sampling = sampling or SamplingSettings()
        self._generator = generator
        check_shares(shares, len(self.stores))
        self._widest = {
            name: max(getattr(store, name).shape[1:] for store in stores) for name in ("observations", "actions")
        }
        self._index_episodes(shares)

    def _index_episodes(self, shares: Sequence[float] | None) -> None:
        """Lays the steps of task 0, task 1, ... of all stores on one line; a draw is a point on it."""
        held_out = self._pool.held_out if self._pool else ()
        store_of, number, task, length, returns = [], [], [], [], []
        id_of = {name: task_id for task_id, name in enumerate(self.task_names)}
        for position, store in enumerate(self.stores):
            ids = np.array([id_of.get(name, -1) for name in store.task_names])
            tasks = ids[store.index["task"]]
            tasks[[number for home, number in held_out if home == position]] = -1
            chosen = np.flatnonzero(tasks >= 0)
            store_of.append(np.full(len(chosen), position))
            number.append(chosen)
            task.append(tasks[chosen])
            length.append(_lengths(store, chosen, self.sampling.until))
            returns.append(store.returns_to_go[store.starts[chosen]])
        tasks = np.concatenate(task)
        order = np.argsort(tasks, kind="stable")
        homes = np.concatenate(store_of)
        ranked = tasks if shares is None else tasks * len(self.stores) + homes
        order = order[_best(ranked[order], np.concatenate(returns)[order], self.sampling.top)]
        tasks = tasks[order]
        self._store_of = homes[order]
        self._number = np.concatenate(number)[order]
        self._length = np.concatenate(length)[order]
        self._begin = np.concatenate([[0], np.cumsum(self._length)])
        self._task_edges = np.searchsorted(tasks, np.arange(len(self.task_names) + 1))
        edges = self._begin[self._task_edges]
        self._task_begin = edges[:-1]
        empty = [name for name, steps in zip(self.task_names, np.diff(edges), strict=True) if not steps]
        if empty:
            raise InputError(f"no episodes of {empty}. Collect some, or leave these tasks out with --tasks.")
        sizes = np.zeros((len(self.task_names), len(self.stores)), dtype=np.int64)
        np.add.at(sizes, (tasks, self._store_of), 1 if self.sampling.unit == "episode" else self._length)
        self._line = SourceShares(sizes, shares)
        starts = [store.starts[:-1] for store in self.stores]
        self._first_step = np.array([starts[s][n] for s, n in zip(self._store_of, self._number, strict=True)])

    def other(self, windows: int, length: int, generator: np.random.Generator) -> "TaskSampler":
        """Draws other windows of the same episodes of all tasks, without prompts, from a stream of its own."""
        sampler = copy.copy(self)
        sampler.windows, sampler.length, sampler._generator = windows, length, generator
        sampler._turns = TaskTurns(len(self.task_names), None, "random")
        sampler.next_observations, sampler._pool = False, None
        return sampler

    def round(self, step: int) -> int:
        """How often all tasks, or groups, have had their turn before a step, if they take turns; else the step."""
        return self._turns.round(step)

    def draw(self, beginnings: bool = False) -> TaskBatch:
        """The next batch.

        Args:
            beginnings: Let windows begin where their episodes do.
        """
        tasks = self._turns.draw(self._generator)
        draws = self._generator.random((len(tasks), self.windows))
        if self.sampling.unit == "episode":
            episode = (self._task_edges[tasks, None] + self._line.places(tasks, draws)).ravel()
            start = (self._generator.random(len(episode)) * self._length[episode]).astype(np.int64)
        else:
            point = (self._task_begin[tasks, None] + self._line.places(tasks, draws)).ravel()
            episode = np.searchsorted(self._begin, point, side="right") - 1
            start = point - self._begin[episode]
        return self._gather(tasks, episode, np.zeros_like(start) if beginnings else start)

    def _gather(self, tasks: NDArray[np.int64], episode: NDArray[np.int64], start: NDArray[np.int64]) -> TaskBatch:
        timesteps = start[:, None] + np.arange(self.length)
        last = self._length[episode] - 1
        valid = timesteps <= last[:, None]
        inside = np.minimum(timesteps, last[:, None])
        steps = self._first_step[episode][:, None] + inside
        rows = steps + self._number[episode][:, None]  # earlier episodes have one observation more than steps
        columns = {
            "observations": self._take("observations", episode, rows, valid),
            "actions": self._take("actions", episode, steps, valid),
            "rewards": self._take("rewards", episode, steps, valid),
            "returns_to_go": self._take("returns_to_go", episode, steps, valid),
            "timesteps": inside * valid,
            "valid": valid,
        }
        if self.next_observations:
            columns["next_observations"] = self._take("observations", episode, rows + 1, valid)
            columns["terminated"] = self._take("terminated", episode, steps, valid)
        prompt = self._pool.draw(tasks, self.windows, self._generator) if self._pool else None
        shape = (len(tasks), self.windows, self.length)
        return TaskBatch(
            task_ids=torch.from_numpy(tasks),
            prompt=prompt,
            **{name: torch.from_numpy(values.reshape(*shape, *values.shape[2:])) for name, values in columns.items()},
        )

    def _take(
        self, name: str, episode: NDArray[np.int64], rows: NDArray[np.int64], valid: NDArray[np.bool_]
    ) -> NDArray[Any]:
        if len(self.stores) == 1:
            column = getattr(self.stores[0], name)
            values = np.take(column, rows, axis=0, mode="clip")  # in range: clip only skips a check
        else:
            store_of = self._store_of[episode]
            column = getattr(self.stores[0], name)
            shape = self._widest.get(name, ())
            values = np.empty((*rows.shape, *shape), dtype=column.dtype)
            for position, store in enumerate(self.stores):
                inside = store_of == position
                taken = np.take(getattr(store, name), rows[inside], axis=0)
                values[inside] = padded(taken, *shape) if shape else taken
        if not valid.all():
            values[~valid] = 0
        return values

    def state_dict(self) -> State:
        """Where the draws stand."""
        return {"generator": self._generator.bit_generator.state, "turn": self._turns.turn}

    def load_state_dict(self, state: State) -> None:
        """Continues the draws from `state_dict`."""
        self._generator.bit_generator.state = state["generator"]
        self._turns.turn = state["turn"]


def _lengths(store: EpisodeStore, episodes: NDArray[np.int64], until: str) -> NDArray[np.int64]:
    """Steps of these episodes, to their end or to their first success."""
    lengths = store.index["length"][episodes].astype(np.int64)
    if until == "end":
        return lengths
    starts = store.starts[episodes]
    flags = [store.success[start : start + steps] for start, steps in zip(starts, lengths, strict=True)]
    return np.array([int(row.argmax()) + 1 if row.any() else len(row) for row in flags], dtype=np.int64)


def _best(tasks: NDArray[np.int64], returns: NDArray[np.float32], top: float) -> NDArray[np.int64]:
    """Positions, ascending, of each task's episodes with the highest returns: that share of them, at least one.

    Args:
        tasks: Of each episode, ascending; or of what else they are to be the best.
        returns: Of each episode.
        top: The share.
    """
    best = []
    for episodes in np.split(np.arange(len(tasks)), np.flatnonzero(np.diff(tasks)) + 1):  # those of one task
        ranked = episodes[np.argsort(-returns[episodes], kind="stable")]
        best.append(ranked[: max(1, round(top * len(episodes)))])
    return np.sort(np.concatenate(best))
