"""Random loss weights."""

from typing import Literal

import torch
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import LossWeighting


class RandomWeighting(LossWeighting):
    """New random weights for every batch, summing to one: what a clever method has to beat.

    Source: Lin et al., Reasonable Effectiveness of Random Weighting, 2022.

    Args:
        distribution: softmax of normal numbers (normal), or uniform over the simplex (dirichlet).
    """

    def __init__(self, distribution: Literal["normal", "dirichlet"] = "normal") -> None:
        super().__init__()
        checks.one_of("distribution", distribution, ("normal", "dirichlet"))
        self.distribution = distribution

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """See `LossWeighting.weights`."""
        self._ready(len(losses))
        if self.distribution == "normal":
            return torch.randn(len(losses), generator=self._generator, dtype=torch.float64).softmax(0)
        draws = -torch.rand(len(losses), generator=self._generator, dtype=torch.float64).clamp(min=1e-300).log()
        return draws / draws.sum()
