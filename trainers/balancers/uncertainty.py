"""Homoscedastic uncertainty."""

import torch
from torch import Tensor, nn

from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.balancers.base import LossWeighting, check_positive


class Uncertainty(LossWeighting):
    """Learned noise levels: `sum exp(-s) loss / 2 + s / 2`.

    Source: Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, 2018, equation 7.

    Args:
        initial: First value of every log variance s.
    """

    def __init__(self, initial: float = 0.0) -> None:
        super().__init__()
        self.initial = initial

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`."""
        super().init(tasks, space, generator)
        self.log_variances = nn.Parameter(torch.full((tasks,), self.initial, dtype=torch.float64))

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """See `LossWeighting.weights`."""
        self._ready(len(losses))
        check_positive(losses, self)
        return (-self.log_variances[task_ids]).exp() / 2

    def objective(self, losses: Tensor, weights: Tensor, task_ids: Tensor) -> Tensor:
        """With the penalty that keeps the variances from growing."""
        return (weights * losses + self.log_variances[task_ids] / 2).sum()
