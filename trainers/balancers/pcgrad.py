"""Projecting conflicting gradients."""

import numpy as np
from numpy.typing import NDArray

from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.surgery import others_in_random_order, project


class PCGrad(GradientAggregation):
    """Each gradient is projected onto the normal planes of those it conflicts with, in random order; then their sum.

    Source: Yu et al., Gradient Surgery for Multi-Task Learning, 2020, algorithm 1.
    """

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        partners = others_in_random_order(len(gramian), self._generator)
        return project(gramian, partners, np.ones_like(partners, dtype=bool))
