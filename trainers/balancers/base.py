"""How the losses of many tasks become one move.

Balancers think in T numbers, or T times T: they compute on the CPU in float64, whatever the agent computes on. All of
their state is indexed by the task's id, so that batches of some of the tasks work with every method.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.update import MultiTaskUpdate


class Balancer(nn.Module, ABC):
    """Makes the move of one batch, through the update's verbs. State lives in buffers, so it is saved and resumed."""

    def init(self, tasks: int, space: ParameterSpace, generator: torch.Generator) -> None:
        """Prepares for T tasks and the shared parameters of one phase; called once, before the optimizer is built."""

    @abstractmethod
    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """Makes the move.

        Returns:
            Numbers for the log.
        """


class LossWeighting(Balancer):
    """Methods that weight the losses and then take one backward pass of their sum."""

    @abstractmethod
    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """Weights `[T]` for the losses `[T]` of the tasks with these ids `[T]`."""

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """One forward pass, one backward pass of the weighted sum."""
        losses = update.losses().values
        values = losses.to("cpu", torch.float64)
        weights = self.weights(values, update.task_ids.cpu())
        return update.descend_loss((weights * values).sum(), weights)


class GradientAggregation(Balancer):
    """Methods whose direction is a weighted sum of the task gradients, with weights that depend on their Gramian.

    The gradients never leave the update: a method sees `[T, T]` numbers.
    """

    @abstractmethod
    def weights(self, gramian: Tensor, losses: Tensor | None = None, task_ids: Tensor | None = None) -> Tensor:
        """Weights `[T]` of the task gradients.

        Args:
            gramian: Inner products `[T, T]` of the task gradients, float64.
            losses: `[T]`, for methods that look at them too.
            task_ids: `[T]`, the rows' tasks; the first T by default.
        """

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """All task gradients, one direction."""
        gradients = update.gradients()
        weights = self.weights(gradients.gramian, gradients.losses.to("cpu", torch.float64), update.task_ids.cpu())
        rows = gradients.pulled_back
        return update.descend(weights.to(rows) @ rows, weights)
