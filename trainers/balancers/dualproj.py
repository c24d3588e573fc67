"""Projection of the mean gradient onto the dual cone."""

import numpy as np
from numpy.typing import NDArray

from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.solvers import nonnegative_qp


class DualProj(GradientAggregation):
    """The direction closest to the mean gradient that conflicts with no task.

    Source: Lopez-Paz and Ranzato, Gradient Episodic Memory, 2017; named as in TorchJD.
    """

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        return closest_without_conflict(gramian, np.full(len(gramian), 1 / len(gramian)))


def closest_without_conflict(gramian: Matrix, weights: Vector) -> Vector:
    """Weights of the direction closest to that of `weights` `[T]` whose product with no gradient is negative."""
    return weights + nonnegative_qp(gramian, (gramian @ weights)[None])[0]
