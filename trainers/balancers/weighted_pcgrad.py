"""Projecting conflicting gradients, with a say in who gives way. No code of the paper is public.

Deviations:
1. The paper's algorithm leaves the order of projections open; the three modes are our readings of it.
2. An epoch is `period` training steps.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mtorl import checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.balancers.base import GradientAggregation, Matrix, Vector, sizes
from mtorl.trainers.balancers.period_means import PeriodMeans
from mtorl.trainers.balancers.surgery import project


class WeightedPCGrad(GradientAggregation):
    """PCGrad in which tasks with a large loss are more likely to keep their gradient.

    Task t has probability proportional to `loss ** gamma`, its loss being the mean over the last period; the same for
    all in the first one. Without conflict the direction is the sum of the gradients.

    Source: Bohn et al., Task Weighting through Gradient Projection for Multitask Learning, 2024.

    Args:
        mode: `order` draws an order of the tasks, and each gives way to those before it; `pairwise` draws for each
            pair who gives way; `single` draws one task, to which all others give way.
        gamma: Power of the loss; 0 gives all tasks the same probability.
        period: Training steps over which losses are averaged; below 1, as a share of all training steps.
    """

    def __init__(
        self, mode: Literal["order", "pairwise", "single"] = "order", gamma: float = 1.0, period: float = 0.05
    ) -> None:
        super().__init__()
        checks.one_of("mode", mode, ("order", "pairwise", "single"))
        checks.within("(-inf, inf)", gamma=gamma)
        checks.within("(0, inf)", period=period)
        self.mode, self.gamma, self.period = mode, gamma, period

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`."""
        super().init(tasks, space, generator)
        self.means = PeriodMeans(tasks, self.span(self.period))  # Deviation 2

    def probabilities(self, task_ids: NDArray[np.int64]) -> Vector:
        """How likely each of these tasks is to keep its gradient; they sum to one."""
        losses = self.means.last.numpy()[task_ids]
        known = np.isfinite(losses)
        losses = np.where(known, losses, losses[known].mean() if known.any() else 1.0)
        exponents = self.gamma * np.log(losses)
        powers = np.exp(np.maximum(exponents - exponents.max(), -700))
        return powers / powers.sum()

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        chances = self.probabilities(task_ids)
        self.means.add(torch.from_numpy(sizes(losses, self)), torch.from_numpy(task_ids))
        size = len(gramian)
        noise = -np.log(-np.log(torch.rand(size, generator=self._generator, dtype=torch.float64).numpy()))
        order = np.argsort(-(np.log(chances) + noise))  # drawn without replacement, by Gumbel's trick
        if self.mode == "single":  # Deviation 1
            partners = np.full((size, 1), order[0])
            active = np.arange(size)[:, None] != order[0]
        else:
            partners = np.tile(order, (size, 1))
            if self.mode == "order":
                rank = np.argsort(order)
                active = rank[:, None] > np.arange(size)
            else:
                active = self._losers(chances)[:, order]
        return project(gramian, partners, active)

    def _losers(self, chances: Vector) -> NDArray[np.bool_]:
        """For each pair who gives way: entry (i, j) says that i gives way to j; never both."""
        size = len(chances)
        draws = torch.rand(size, size, generator=self._generator, dtype=torch.float64).numpy()
        first_keeps = np.triu(draws < chances[:, None] / (chances[:, None] + chances), 1)
        second_keeps = np.triu(~first_keeps, 1)
        return second_keeps | first_keeps.T
