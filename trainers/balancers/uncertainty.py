"""Homoscedastic uncertainty."""

import torch
from torch import Tensor, nn

from mtorl import checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.balancers.base import LossWeighting, sizes


class Uncertainty(LossWeighting):
    """Learned noise levels: `sum exp(-s) loss / 2 + s / 2`.

    Source: Kendall, Gal and Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, 2018, equation 7.

    Args:
        initial: First value of every log variance s.
        lr: Learning rate of the log variances, which have far to go: losses become small. It rises and falls as the
            agent's.
    """

    def __init__(self, initial: float = 0.0, lr: float = 0.03) -> None:
        super().__init__()
        checks.within("(-inf, inf)", initial=initial)
        checks.within("(0, inf)", lr=lr)
        self.initial, self.lr = initial, lr
        self.learning_rate = lr

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`."""
        super().init(tasks, space, generator)
        self.log_variances = nn.Parameter(torch.full((tasks,), self.initial, dtype=torch.float64))

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """See `LossWeighting.weights`."""
        self._ready(len(losses))
        sizes(losses.detach(), self)
        return (-self.log_variances[task_ids]).exp() / 2

    def objective(self, losses: Tensor, weights: Tensor, task_ids: Tensor) -> Tensor:
        """With the penalty that keeps the variances from growing."""
        return (weights * losses + self.log_variances[task_ids] / 2).sum()
