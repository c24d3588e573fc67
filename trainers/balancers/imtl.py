"""Impartial multi-task learning: its gradient part and its loss part."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtorl import checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.balancers.base import GradientAggregation, LossWeighting, Matrix, Vector, sizes
from mtorl.trainers.balancers.solvers import norm, pseudo_solve


class IMTLG(GradientAggregation):
    """Weights that sum to one and give the direction the same projection on every task's unit gradient.

    They can be negative, and with gradients of very unequal norms the direction can then hurt every task. Where no such
    weights exist (opposed gradients) the direction is zero. Deviation 1: it is made no longer than all gradients in a
    row; weights that nearly cancel out would give it any length.

    Source: Liu et al., Towards Impartial Multi-task Learning, 2021, equation 6.
    """

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        units = 1 / np.sqrt(np.diag(gramian))
        weights = units * pseudo_solve(gramian * np.outer(units, units), np.ones(len(gramian)))
        total, longest = abs(weights.sum()), (1 / units).sum()
        length = norm(gramian, weights)
        if max(total, length / longest) <= 1e-12 * units.max():
            return np.zeros(len(gramian))
        return np.copysign(1 / max(total, length / longest), weights.sum()) * weights  # Deviation 1


class IMTLL(LossWeighting):
    """Learned scales that bring all losses to the same size: `sum exp(s) loss - s`.

    Source: Liu et al., Towards Impartial Multi-task Learning, 2021, equation 9.

    Args:
        lr: Learning rate of the scales, which have far to go: losses become small. It rises and falls as the agent's.
    """

    def __init__(self, lr: float = 0.03) -> None:
        super().__init__()
        checks.within("(0, inf)", lr=lr)
        self.lr = self.learning_rate = lr

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`."""
        super().init(tasks, space, generator)
        self.scales = nn.Parameter(torch.zeros(tasks, dtype=torch.float64))

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """See `LossWeighting.weights`."""
        self._ready(len(losses))
        sizes(losses.detach(), self)
        return self.scales[task_ids].exp()

    def objective(self, losses: Tensor, weights: Tensor, task_ids: Tensor) -> Tensor:
        """With the penalty that keeps the scales from vanishing."""
        return (weights * losses - self.scales[task_ids]).sum()
