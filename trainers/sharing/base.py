"""Which parameters each task computes with."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets.sampler import TaskSampler

if TYPE_CHECKING:
    from mtorl.trainers.gradients import DenseGradients
    from mtorl.trainers.sharing.group_gate import GroupGate

Point = tuple[float, ...]
"""Shares of the T tasks, which sum to one."""


class Sharing(nn.Module, ABC):
    """From the shared parameters to those of one task. State lives in buffers, so it is saved and resumed.

    A member may have parameters of its own (`nn.Parameter`), whose first axis is the task. They are learned as heads
    are: the phase's optimizer moves them, but for the rows of tasks outside a batch.

    Attributes:
        uniform: All tasks compute with the shared parameters as they are, in one pass. Nothing below is then called.
        common: All tasks compute with the same parameters, those that `effective` gives for any of them.
        own: Names of the shared parameters for which it has parameters of its own.
        probes: Batches of windows whose mean gradients `update` is given; 0: it looks at no gradients.
        concluding: Steps of the windows that `conclude` is given; 0: it is not called.
        task_names: Of the T tasks, set before `init` where they are known, for members that read files.
        groups: `[T]`, the group of each task, set before `init` where tasks are in groups.
    """

    uniform = False
    common = False
    own: tuple[str, ...] = ()
    probes = 1
    concluding = 0
    task_names: tuple[str, ...] | None = None
    groups: tuple[int, ...] | None = None

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """Prepares for the shared parameters of one phase and T tasks; called once, before training."""

    def size(self, space: ParameterSpace, tasks: int) -> int:
        """How many scalars of its own it would learn for T tasks, besides the shared ones of a phase."""
        return 0

    @abstractmethod
    def effective(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The parameters with which a task computes, differentiable in the shared ones.

        Args:
            parameters: The shared parameters by name.
            task: Id of the task.
        """

    @abstractmethod
    def pull_back(self, gradients: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """From a gradient at a task's effective parameters to that of the shared ones (the chain rule).

        Args:
            gradients: Of the task's loss at its own effective parameters, by name; may be changed in place.
            task: Id of the task.
        """

    def effective_each(self, parameters: dict[str, Tensor], task_ids: Tensor) -> list[dict[str, Tensor]]:
        """`effective` of several tasks `[T]`, one after the other."""
        return [self.effective(parameters, task) for task in task_ids.tolist()]

    def following(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """`effective` of parameters that follow the shared ones (target networks), under the names of these."""
        return self.effective(parameters, task)

    def add_own_gradients(self, totals: dict[str, Tensor], gradients: dict[str, Tensor], task: int) -> None:
        """From a gradient at a task's effective parameters to that of the member's own ones; without any, nothing.

        Args:
            totals: Gradients of its own parameters by name, to which the task's are added.
            gradients: Of the task's loss at its own effective parameters, by name; not to be changed.
            task: Id of the task.
        """

    def stacked_effective(self, parameters: dict[str, Tensor], task_ids: Tensor) -> dict[str, Tensor]:
        """`effective` of several tasks `[T]`, each parameter with the tasks as its first axis."""
        each = self.effective_each(parameters, task_ids)
        return {name: torch.stack([one[name] for one in each]) for name in parameters}

    def stacked_pull_back(self, gradients: dict[str, Tensor], task_ids: Tensor) -> dict[str, Tensor]:
        """`pull_back` of several tasks `[T]`, each gradient with the tasks as its first axis."""
        each = [
            self.pull_back({name: value[row] for name, value in gradients.items()}, task)
            for row, task in enumerate(task_ids.tolist())
        ]
        return {name: torch.stack([one[name] for one in each]) for name in gradients}

    def unused(self, task_ids: Tensor) -> dict[str, Tensor]:
        """Which entries of the shared parameters none of these tasks computes with.

        A step leaves them where they are, together with their optimizer moments.

        Returns:
            Flat indices by the parameter's name; nothing for a parameter of which all entries are used.
        """
        return {}

    def mixture(self, task_ids: Tensor) -> "Mixture | None":
        """Several points at which the losses of a batch are to be seen in one move, for members that draw some.

        Args:
            task_ids: `[T]`, of the tasks of the batch.
        """
        return None

    def after_step(self, parameters: dict[str, Tensor], task_ids: Tensor) -> None:
        """Puts right what the optimizer has just moved; called after each of its steps.

        Args:
            parameters: The shared parameters by name; may be changed in place.
            task_ids: `[T]`, of the tasks of the batch.
        """

    def due(self, index: int) -> bool:
        """Whether `update` is to be called after training step `index` (from 0)."""
        return False

    def update(self, parameters: dict[str, Tensor], gradients: "DenseGradients", progress: float) -> dict[str, float]:
        """Changes which parameters the tasks use.

        Args:
            parameters: The shared parameters by name.
            gradients: Of all tasks, on windows of the training data drawn for this; empty rows without `probes`.
            progress: Share of training that is done, in [0, 1].

        Returns:
            Numbers for the log.
        """
        raise NotImplementedError(f"{type(self).__name__} is due to be updated, but has no update.")

    def conclude(self, sampler: TaskSampler) -> dict[str, float]:
        """Learns, after the last training step, what only acting needs.

        Args:
            sampler: Draws windows of `concluding` steps of all tasks.

        Returns:
            Numbers for the log.
        """
        return {}

    def without_task(self, parameters: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The parameters to act with where the task is not known; several if `gate` is to choose among them."""
        return [parameters]

    def points(self) -> list[Point]:
        """Where between the tasks it can be played, besides at each task's own place; nowhere by default."""
        return []

    def at(self, point: Point) -> "Sharing":
        """The same, but all tasks compute with the parameters at one point.

        Raises:
            InputError: It has nothing between the tasks.
        """
        raise InputError(
            f"{type(self).__name__} has no parameters between those of the tasks. Expected a run trained with "
            "--sharing ParetoManifold."
        )

    @property
    def gate(self) -> "GroupGate | None":
        """Chooses among `without_task`."""
        return None


@dataclass(frozen=True)
class Mixture:
    """A batch seen at several points at once, by a balancer that weights losses.

    Attributes:
        points: The parameters at each.
        combined: From the losses `[points, T]` to those `[T]` that the balancer weights.
    """

    points: Sequence[Sharing]
    combined: Callable[[Tensor], Tensor]
