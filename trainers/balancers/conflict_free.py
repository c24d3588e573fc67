"""Conflict-free inverse gradients."""

import numpy as np
from numpy.typing import NDArray

from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.solvers import pseudo_solve


class ConFIG(GradientAggregation):
    """The direction with the same cosine to every gradient, as long as the sum of their projections on it.

    Source: Liu et al., ConFIG: Towards Conflict-free Training of Physics Informed Neural Networks, 2025, equation 2.
    """

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        size = len(gramian)
        units = 1 / np.sqrt(np.diag(gramian))
        weights = units * pseudo_solve(gramian * np.outer(units, units), np.ones(size))
        square = float(weights @ gramian @ weights)
        if square <= 1e-12:  # the unit gradients cancel out: no direction is as close to all
            return np.zeros(size)
        return weights * (gramian @ weights).sum() / square
