"""The same weight for every task."""

import torch
from torch import Tensor

from mtorl.trainers.balancers.base import LossWeighting


class Equal(LossWeighting):
    """The mean of the task losses: the baseline of every comparison."""

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """1/T for every task of the batch."""
        return torch.full_like(losses, 1 / len(losses))
