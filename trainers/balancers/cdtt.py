"""Central direction and task tensioners."""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector, sizes
from mtorl.trainers.balancers.solvers import min_norm_weights, norm


class CDTT(GradientAggregation):
    """A direction at equal angles to all gradients, pulled towards the tasks that converge slowly.

    How a task converges is read from its gradient norm over the last `window` steps and from its loss. Tension sets
    in when a task has been seen for a whole window.

    Source: Nakamura, Grassi and Barros, Leveraging convergence behavior to balance conflicting tasks in multi-task
    learning, 2022.

    Args:
        alpha: Strength of the tension, in [0, 1].
        window: Steps over which norms are compared.
        tension_scale: The published tension has unit length, which dominates near convergence: on Meta-World MT10
            with AdamW, training then does not converge. `relative` scales it with the central direction.
    """

    norms: Tensor
    seen: Tensor

    def __init__(
        self, alpha: float = 0.3, window: int = 10, tension_scale: Literal["unit", "relative"] = "unit"
    ) -> None:
        super().__init__()
        checks.within("[0, 1]", alpha=alpha)
        checks.at_least(1, window=window)
        checks.one_of("tension_scale", tension_scale, ("unit", "relative"))
        self.alpha, self.window, self.tension_scale = alpha, window, tension_scale

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """The last norms of every task, oldest first, and how often it was seen."""
        return {
            "norms": torch.zeros(tasks, self.window + 1, dtype=torch.float64),
            "seen": torch.zeros(tasks, dtype=torch.int64),
        }

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        losses, norms, seen = sizes(losses, self), self.norms.numpy(), self.seen.numpy()
        norms[task_ids] = np.roll(norms[task_ids], -1, 1)
        norms[task_ids, -1] = np.sqrt(np.diag(gramian))
        seen[task_ids] += 1
        direction = central_direction(gramian)
        if (seen[task_ids] <= self.window).any():
            return direction
        recent, before = norms[task_ids, 1:].sum(1), norms[task_ids, :-1].sum(1)
        signal = recent / before + np.log10(losses)
        scale = norm(gramian, direction) if self.tension_scale == "relative" else 1.0
        pulled = tensioned(gramian, direction, scale * self.tension(signal))
        return without_conflict_in_turn(gramian, pulled)

    def tension(self, signal: Vector) -> Vector:
        """How hard each task pulls, in (1 - alpha, 1), for signals `[T]`."""
        return np.maximum(0.0, self.alpha / (1 + np.exp(-np.e * signal + np.e)) + 1 - self.alpha)


def central_direction(gramian: Matrix) -> Vector:
    """Weights, summing to one, of the shortest convex combination of the unit gradients."""
    units = 1 / np.sqrt(np.diag(gramian))
    weights = units * min_norm_weights(gramian * np.outer(units, units))
    return weights / weights.sum()


def tensioned(gramian: Matrix, direction: Vector, tension: Vector) -> Vector:
    """The direction, pulled towards each gradient with the given force `[T]`."""
    towards = np.eye(len(gramian)) - direction  # row t: from the direction to gradient t
    lengths = np.sqrt(np.maximum(np.einsum("ti,ij,tj->t", towards, gramian, towards), 0))
    far = lengths > 1e-12 * np.sqrt(np.trace(gramian))
    return direction + (np.where(far, tension / np.where(far, lengths, 1.0), 0.0)) @ towards


def without_conflict_in_turn(gramian: Matrix, weights: Vector) -> Vector:
    """Moves the direction, for each task that it conflicts with, towards that task's gradient until orthogonal."""
    for task, square in enumerate(np.diag(gramian)):
        product = float(gramian[task] @ weights)
        if product < 0:
            share = -product / (square - product)
            weights = (1 - share) * weights
            weights[task] += share
    return weights
