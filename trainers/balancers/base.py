"""How the losses of many tasks become one move."""

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
        return update.descend_loss((self.weights(losses, update.task_ids) * losses).sum())
