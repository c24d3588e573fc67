"""Unconflicting projection of gradients."""

import numpy as np
from numpy.typing import NDArray

from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.solvers import in_dual_cone


class UPGrad(GradientAggregation):
    """Each gradient is replaced by the closest direction that conflicts with no task; then their mean.

    Source: Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024, equation 4. The T quadratic
    programs are solved exactly, without a ridge where none is needed.
    """

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        return in_dual_cone(gramian, np.eye(len(gramian))).mean(0)
