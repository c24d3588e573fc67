"""Which tasks come into a batch."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks

TaskOrder = Literal["random", "round_robin", "by_group", "over_groups"]
OF_GROUPS = ("by_group", "over_groups")
"""Orders that ask for the groups of tasks."""


def largest_batch(tasks: int, order: TaskOrder, groups: Sequence[int] | None) -> int:
    """Tasks in a batch, at most, where no number is given."""
    if groups is None or order not in OF_GROUPS:
        return tasks
    sizes = np.bincount(groups)
    return int(sizes.max()) if order == "by_group" else len(sizes)


class TaskTurns:
    """Chooses the tasks of one batch after the other.

    Args:
        tasks: T.
        most: Tasks in a batch, at most; as `largest_batch` says by default.
        order: `random` draws without replacement, `round_robin` takes tasks in turn. Of tasks in groups, `by_group`
            takes the groups in turn and draws from one, `over_groups` draws as many of each group as can be.
        groups: `[T]`, the group of each task, from 0 without gaps.

    Attributes:
        turn: Whose turn it is: a task or a group; part of a checkpoint.

    Raises:
        InputError: There are not so many tasks, or they are in no groups and the order asks for some.
    """

    def __init__(self, tasks: int, most: int | None, order: TaskOrder, groups: Sequence[int] | None = None) -> None:
        checks.at_least(1, tasks_per_batch=most)
        checks.one_of("order", order, TaskOrder)
        if most is not None and most > tasks:
            raise InputError(f"tasks_per_batch is {most}, but there are only {tasks} tasks.")
        if groups is None and order in OF_GROUPS:
            raise InputError(f"order is {order!r}, but the tasks are in no groups. Add --grouping FILE.")
        self.tasks, self.order, self.turn = tasks, order, 0
        self.most = most or largest_batch(tasks, order, groups)
        labels = np.zeros(tasks, dtype=np.int64) if groups is None else np.array(groups)
        self._groups = [np.flatnonzero(labels == group) for group in range(labels.max() + 1)]

    def round(self, step: int) -> int:
        """How often all have had their turn before a step, if they take turns; otherwise the step."""
        if self.order == "by_group":
            return step // len(self._groups)
        return step // math.ceil(self.tasks / self.most) if self.order == "round_robin" else step

    def draw(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """The tasks of the next batch, ascending."""
        if self.order == "by_group":
            members = self._groups[self.turn]
            self.turn = (self.turn + 1) % len(self._groups)
            return np.sort(generator.permutation(members)[: self.most])
        if self.most == self.tasks:
            return np.arange(self.tasks)
        if self.order == "over_groups":
            return self._over_groups(generator)
        if self.order == "random":
            return np.sort(generator.choice(self.tasks, self.most, replace=False))
        tasks = (self.turn + np.arange(self.most)) % self.tasks
        self.turn = int(self.turn + self.most) % self.tasks
        return tasks

    def _over_groups(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Deals tasks of all groups in turn, of each in a random order; whose turn comes first is drawn, too."""
        each = [generator.permutation(members) for members in self._groups]
        turns = generator.permutation(len(each))
        rounds = range(max(map(len, each)))
        dealt = [each[group][place] for place in rounds for group in turns if place < len(each[group])]
        return np.sort(np.array(dealt[: self.most]))
