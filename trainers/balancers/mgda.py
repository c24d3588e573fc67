"""The multiple-gradient descent algorithm."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mtorl import checks
from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector, sizes
from mtorl.trainers.balancers.solvers import min_norm_weights


class MGDA(GradientAggregation):
    """The shortest convex combination of the task gradients: no task gets worse, and it is zero where none can gain.

    Source: Desideri, 2012; Sener and Koltun, Multi-Task Learning as Multi-Objective Optimization, 2018. Solved exactly
    instead of by Frank-Wolfe steps.

    Args:
        normalise: Divide gradients first by their norm (l2), their loss (loss), both (loss+), or not at all (none).
    """

    def __init__(self, normalise: Literal["none", "l2", "loss", "loss+"] = "none") -> None:
        super().__init__()
        checks.one_of("normalise", normalise, ("none", "l2", "loss", "loss+"))
        self.normalise = normalise

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        units = np.ones(len(gramian))
        if self.normalise in ("l2", "loss+"):
            units /= np.sqrt(np.diag(gramian))
        if self.normalise in ("loss", "loss+"):
            units /= sizes(losses, self)
        return units * min_norm_weights(gramian * np.outer(units, units))
