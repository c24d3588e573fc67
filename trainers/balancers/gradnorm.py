"""Gradient normalisation."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector, sizes


class GradNorm(GradientAggregation):
    """Weights that learn to give all tasks gradients of a like norm, larger for tasks that train slowly.

    Source: Chen et al., GradNorm, 2018, equation 2; the weights sum to the number of tasks. Deviation 1: norms are over
    all shared parameters, not the last shared layer's. Deviation 2: steps of the weights are relative to the mean norm.

    Args:
        alpha: How strongly slow tasks are favoured; 0 gives equal norms.
        lr: Step size of the weights, relative to the mean norm.
    """

    task_weights: Tensor
    first_losses: Tensor

    def __init__(self, alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__()
        checks.within("(-inf, inf)", alpha=alpha)
        checks.within("(0, inf)", lr=lr)
        self.alpha, self.lr = alpha, lr

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """Weights, and each task's first loss."""
        ones = torch.ones(tasks, dtype=torch.float64)
        return {"task_weights": ones, "first_losses": ones * float("nan")}

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """The present weights; they are moved for the next batch."""
        losses = sizes(losses, self)
        first, everything = self.first_losses.numpy(), self.task_weights.numpy()
        first[task_ids] = np.where(np.isnan(first[task_ids]), losses, first[task_ids])
        weights = everything[task_ids].copy()
        norms = np.sqrt(np.diag(gramian))  # Deviation 1
        slope = self.slope(weights, norms, losses / first[task_ids])
        moved = np.maximum(weights - self.lr * slope / float(norms.mean()), 1e-3)  # Deviation 2
        everything[task_ids] = moved * weights.sum() / moved.sum()
        return weights

    def slope(self, weights: Vector, norms: Vector, ratios: Vector) -> Vector:
        """Derivative of the GradNorm loss by the weights.

        Args:
            weights: `[T]`.
            norms: Of the unweighted task gradients, `[T]`.
            ratios: Loss over first loss, `[T]`.
        """
        weighted = weights * norms
        rates = ratios / ratios.mean()
        return np.sign(weighted - weighted.mean() * rates**self.alpha) * norms
