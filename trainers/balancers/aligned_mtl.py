"""Independent component alignment."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtorl import checks
from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.solvers import spectrum


class AlignedMTL(GradientAggregation):
    """Makes the task gradients orthogonal and equally long, moving them as little as possible; then their mean.

    Source: Senushkin et al., Independent Component Alignment for Multi-Task Learning, 2023, algorithm 1.

    Args:
        scale: The common length: of the smallest principal component (min), the median one, or their root mean square
            (rmse).
    """

    def __init__(self, scale: Literal["min", "median", "rmse"] = "min") -> None:
        super().__init__()
        checks.one_of("scale", scale, ("min", "median", "rmse"))
        self.scale = scale

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        values, vectors = spectrum(gramian)
        square = {"min": values.min(), "median": np.median(values), "rmse": values.mean()}[self.scale]
        mean = np.full(len(gramian), 1 / len(gramian))
        return np.sqrt(square) * (vectors @ ((vectors.T @ mean) / np.sqrt(values)))
