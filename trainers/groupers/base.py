"""A stage before training: from an agent and its data to groups of tasks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.sampler import TaskSampler
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.sharing import Sharing


class TaskGrouper(ABC):
    """Finds groups of tasks."""

    @abstractmethod
    def fit(
        self, functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, groups: int, seed: int = 0
    ) -> Grouping:
        """Groups all tasks.

        Args:
            functions: Losses and gradients of one phase of an agent that has trained a little.
            sharing: With which parameters its tasks compute.
            sampler: Draws windows of all tasks.
            groups: How many groups.
            seed: Of the method's own draws.

        Raises:
            InputError: There are fewer tasks than groups, or tasks share nothing that is trained.
        """


def check_count(groups: int, tasks: int) -> None:
    """Raises InputError unless that many tasks can form that many groups."""
    if not 1 <= groups <= tasks:
        raise InputError(f"groups is {groups}; expected 1 to {tasks}, the number of tasks.")


def check_shared(functions: PhaseFunctions) -> None:
    """Raises InputError where tasks share nothing that is trained."""
    if not len(functions.space):
        raise InputError(
            f"the phase {functions.phase.name} trains nothing that tasks share (all of it is frozen), so that no "
            "gradients can agree. Group the tasks of an agent that does."
        )


def mean_gradients(functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, batches: int) -> Tensor:
    """The mean gradient of every task over that many batches, of length 1: `[T, P]`.

    Raises:
        InputError: Tasks share nothing that is trained, or gradients are not finite.
    """
    check_shared(functions)
    like = functions.agent.observation_mean
    windows = (sampler.draw().to(like.device, like.dtype) for _ in range(batches))
    rows = functions.dense_gradients(windows, sharing).dense
    norms = rows.norm(dim=1, keepdim=True)
    if not bool(torch.isfinite(norms).all()):
        raise InputError("gradients are not finite; expected an agent whose losses are. Train it again.")
    return rows / norms.clamp(min=torch.finfo(rows.dtype).tiny)


def numbered(labels: Sequence[int]) -> tuple[int, ...]:
    """The same groups, numbered as their first tasks come."""
    order = list(dict.fromkeys(labels))
    return tuple(order.index(label) for label in labels)


def known_groups(names: tuple[str, ...], labels: Sequence[int], method: str) -> Grouping:
    """Groups of which nothing is known but who is in them: affinity 1 within, 0 between."""
    rows = tuple(tuple(float(one == other) for other in labels) for one in labels)
    return Grouping(names, numbered(labels), rows, 0.0, f"{method}; nothing was measured")
