"""Projection of the mean gradient onto the dual cone."""

import numpy as np
from numpy.typing import NDArray

from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.solvers import in_dual_cone


class DualProj(GradientAggregation):
    """The direction closest to the mean gradient that conflicts with no task.

    Source: Lopez-Paz and Ranzato, Gradient Episodic Memory, 2017; named as in TorchJD.
    """

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        return in_dual_cone(gramian, np.full((1, len(gramian)), 1 / len(gramian)))[0]
