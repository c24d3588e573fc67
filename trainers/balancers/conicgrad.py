"""Gradients in a cone."""

import math

import numpy as np
from numpy.typing import NDArray

from mtorl import checks
from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.solvers import min_norm_weights, noise, nonnegative_qp, norm


class ConicGrad(GradientAggregation):
    """Of the directions near the mean gradient's, the one in which the worst-off task gains most; as long as the mean.

    Near is within a cone around the mean gradient. Where the shortest convex combination of the gradients (MGDA) lies
    in the cone, it points that way; otherwise the direction lies on the cone's surface.

    Source: Hassanpour et al., Fantastic Multi-Task Gradient Updates and How to Find Them In a Cone, 2025; written from
    the problem that the paper states. Deviation 1: that problem is solved exactly for every batch; the paper moves the
    tasks' weights in its dual by steps.

    Args:
        c: Cosine of the angle between the cone's axis and its surface; 1 is the mean gradient.
    """

    def __init__(self, c: float = 0.5) -> None:
        super().__init__()
        checks.within("(0, 1]", c=c)
        self.c = c

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        size, squares = len(gramian), np.diag(gramian)
        mean = np.full(size, 1 / size)
        inner, axis = gramian @ mean, norm(gramian, mean)
        if self.c == 1 or axis**2 <= noise(size) * (mean**2 @ squares):  # the mean has no direction
            return mean
        weights = min_norm_weights(gramian)
        length = norm(gramian, weights)
        told_apart = length**2 > noise(size) * (weights**2 @ squares)
        if not told_apart or inner @ weights < self.c * axis * length:
            weights = self._on_surface(gramian, inner / axis, axis)
            length = norm(gramian, weights)
            if length**2 <= noise(size) * (weights**2 @ squares):  # across the axis there is nothing but rounding
                return mean
        return weights * (axis / length)

    def _on_surface(self, gramian: Matrix, along: Vector, axis: float) -> Vector:  # Deviation 1
        """The best direction with a part of length one along the cone's axis.

        Its part across the axis has at most the length of the cone's radius there. For a gain that all tasks are to
        have, the shortest such part is a small quadratic problem; the largest gain that it allows is found by
        bisection.

        Args:
            gramian: `[T, T]`.
            along: Products `[T]` of the gradients with the unit vector along the axis.
            axis: Length of the mean gradient.
        """
        from scipy.optimize import brentq  # imported here: it takes a fifth of a second

        size, radius, units = len(gramian), math.sqrt(1 - self.c**2) / self.c, 1 / np.sqrt(np.diag(gramian))
        across = (gramian - np.outer(along, along)) * np.outer(units, units)
        below = max(0.0, -float(np.linalg.eigvalsh(across)[0]))  # more than zero is rounding, of a short mean
        across[np.diag_indices(size)] += noise(size) + 2 * below  # what may be rounding is no direction

        least, largest = float(along.min()), axis  # all directions here have the same gain on average

        def part(gain: float) -> Vector:
            return nonnegative_qp(across, (units * (along - gain))[None])[0] if gain > least else np.zeros(size)

        def excess(gain: float) -> float:
            return norm(across, part(gain)) - radius

        best = brentq(excess, least, largest, xtol=1e-9 * (largest - least)) if excess(largest) > 0 else largest
        v = units * part(best)
        return v + (1 - along @ v) / (size * axis)
