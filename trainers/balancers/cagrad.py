"""Conflict-averse gradient descent."""

import math

import numpy as np
from numpy.typing import NDArray

from mtorl import checks
from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.solvers import in_dual_cone, min_norm_weights, noise, norm


class CAGrad(GradientAggregation):
    """The direction near the mean gradient that helps the worst-off task most.

    It lies within `c` times the mean's norm of the mean. Its dual asks for weights on the simplex; for a given length r
    of their combination these are the shortest convex combination of the gradients shifted by the mean, and r is found
    by bisection.

    Source: Liu et al., Conflict-Averse Gradient Descent, 2021, algorithm 1.

    Args:
        c: Radius of the search, in norms of the mean gradient; 0 is the mean.
    """

    def __init__(self, c: float = 0.5) -> None:
        super().__init__()
        checks.within("[0, inf)", c=c)
        self.c = c

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        from scipy.optimize import brentq  # imported here: it takes a fifth of a second

        size = len(gramian)
        mean = np.full(size, 1 / size)
        inner, length = gramian @ mean, norm(gramian, mean)
        radius = self.c * length
        if radius <= 1e-12 * math.sqrt(np.trace(gramian)):
            return mean

        def weights(shift: float) -> Vector:
            """The minimiser for one length: the shortest combination of `g_t + shift * mean`."""
            return min_norm_weights(gramian + shift * (inner[:, None] + inner) + (shift * length) ** 2)

        def excess(shift: float) -> float:
            return norm(gramian, weights(shift)) - shift * radius

        largest = math.sqrt(float(np.diag(gramian).max())) / radius
        smallest = math.sqrt(noise(size)) * largest  # shorter combinations cannot be told from none
        if excess(smallest) <= 0:  # the tasks cannot all gain
            return in_dual_cone(gramian, mean[None])[0]
        w = weights(brentq(excess, smallest, largest * (1 + 1e-6), xtol=1e-9 * largest))
        return mean + radius / norm(gramian, w) * w
