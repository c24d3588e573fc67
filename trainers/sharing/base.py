"""Which parameters each task computes with."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mtorl.agents.parameters import ParameterSpace

if TYPE_CHECKING:
    from mtorl.trainers.gradients import TaskGradients


class Sharing(nn.Module, ABC):
    """From the shared parameters to those of one task. State lives in buffers, so it is saved and resumed.

    Attributes:
        uniform: All tasks compute with the shared parameters as they are, in one pass. Nothing below is then called.
    """

    uniform = False

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """Prepares for the shared parameters of one phase and T tasks; called once, before training."""

    @abstractmethod
    def effective(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The parameters with which a task computes, differentiable in the shared ones.

        Args:
            parameters: The shared parameters by name.
            task: Id of the task.
        """

    @abstractmethod
    def pull_back(self, dense: Tensor, task_ids: Tensor) -> Tensor:
        """From gradients at the effective parameters to gradients of the shared ones (the chain rule).

        Args:
            dense: `[T, P]`, gradient of each task's loss at its own effective parameters; left as it is.
            task_ids: `[T]`, the rows' tasks.

        Returns:
            `[T, P]`.
        """

    def used(self, task_ids: Tensor) -> Tensor | None:
        """Which shared parameters at least one of these tasks computes with: bool `[P]`, or None for all.

        The others are left where they are by a step, together with their optimizer moments.
        """
        return None

    def due(self, index: int) -> bool:
        """Whether `update` is to be called after training step `index` (from 0)."""
        return False

    def update(self, parameters: dict[str, Tensor], gradients: "TaskGradients", progress: float) -> None:
        """Changes which parameters the tasks use.

        Args:
            parameters: The shared parameters by name.
            gradients: Of all tasks, on windows that training does not see.
            progress: Share of training that is done, in [0, 1].
        """
        raise NotImplementedError(f"{type(self).__name__} is due to be updated, but has no update.")
