"""Nash bargaining between tasks, and its generalisation to alpha-fairness."""

import numpy as np
from numpy.typing import NDArray

from mtorl import checks
from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.solvers import damped_newton, norm


class NashMTL(GradientAggregation):
    """The bargaining solution: weights with `weight_t * <g_t, direction> = 1`, indifferent to the scale of the losses.

    Source: Navon et al., Multi-Task Learning as a Bargaining Game, 2022, equation 4. Deviation 1: the weights minimise
    a convex potential, found by Newton's method; the published sequence of convex programs stops at equal weights
    whenever a row of the Gramian sums to zero.

    Args:
        max_norm: The direction is shortened to this norm; 0 leaves it, whose norm is then the root of T.
    """

    def __init__(self, max_norm: float = 1.0) -> None:
        super().__init__()
        checks.within("[0, inf)", max_norm=max_norm)
        self.max_norm = max_norm

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        weights = damped_newton(gramian, 1.0)  # Deviation 1
        length = norm(gramian, weights)
        return weights * (self.max_norm / length) if 0 < self.max_norm < length else weights


class FairGrad(GradientAggregation):
    """Alpha-fair weights: `<g_t, direction> = weight_t ** (-1 / alpha)`.

    Source: Ban and Ji, Fair Resource Allocation in Multi-Task Learning, 2024, equation 6.

    Args:
        alpha: 1 is Nash bargaining (without its limit on the norm), large values equalise the tasks' gains; 0 would be
            the mean.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        checks.within("[0.1, inf)", alpha=alpha)
        self.alpha = alpha

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        return damped_newton(gramian, 1 / self.alpha)
