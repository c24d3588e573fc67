"""Gradient vaccine."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.surgery import others_in_random_order


class GradVac(GradientAggregation):
    """Turns gradients towards each other until their cosines are those that were seen on average; then their sum.

    Source: Wang et al., Gradient Vaccine, 2021, equation 3. With targets of zero it is PCGrad.

    Args:
        beta: Share of a new cosine in the moving average that is the target.
    """

    targets: Tensor

    def __init__(self, beta: float = 0.5) -> None:
        super().__init__()
        checks.within("[0, 1]", beta=beta)
        self.beta = beta

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """The target cosine of every ordered pair of tasks."""
        return {"targets": torch.zeros(tasks, tasks, dtype=torch.float64)}

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        size = len(gramian)
        rows, norms = np.arange(size), np.sqrt(np.diag(gramian))
        partners = others_in_random_order(size, self._generator)
        coefficients, products = np.eye(size), gramian.copy()
        targets = self.targets.numpy()[np.ix_(task_ids, task_ids)]
        for number in range(size - 1):
            partner = partners[:, number]
            own = np.sqrt(np.maximum((coefficients * products).sum(1), 0))
            cosine = np.clip(products[rows, partner] / np.maximum(own * norms[partner], 1e-300), -1, 1)
            target = targets[rows, partner]
            sine, other = np.sqrt(1 - target**2), np.sqrt(1 - cosine**2)
            turn = own * (target * other - cosine * sine) / np.maximum(norms[partner] * sine, 1e-12 * norms[partner])
            amount = np.where((cosine < target) & (sine > 1e-6), turn, 0.0)
            coefficients[rows, partner] += amount
            products += amount[:, None] * gramian[partner]
            targets[rows, partner] = (1 - self.beta) * target + self.beta * cosine
        self.targets[np.ix_(task_ids, task_ids)] = torch.from_numpy(targets)
        return coefficients.sum(0)
