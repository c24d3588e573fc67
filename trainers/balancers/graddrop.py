"""Gradient sign dropout."""

import torch
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import MatrixAggregation

BLOCK = 1 << 18
"""Parameters handled at a time, so that temporary copies stay small."""


class GradDrop(MatrixAggregation):
    """Keeps, parameter by parameter, only the positive or only the negative gradients, drawn by their share.

    In expectation the direction is the sum of the gradients.

    Source: Chen et al., Just Pick a Sign, 2020, algorithm 1. Deviation 1: signs are of gradients at parameters instead
    of activations.

    Args:
        leak: Share of the dropped gradients that passes all the same, in [0, 1].
    """

    def __init__(self, leak: float = 0.0) -> None:
        super().__init__()
        checks.within("[0, 1]", leak=leak)
        self.leak = leak

    def aggregate(self, rows: Tensor, losses: Tensor | None = None, task_ids: Tensor | None = None) -> Tensor:
        """See `MatrixAggregation.aggregate`."""
        self._defaults(rows, losses, task_ids)
        seed = int(torch.randint(1 << 62, (), generator=self._generator))
        stream = torch.Generator(rows.device).manual_seed(seed)
        draws = torch.rand(rows.shape[1], generator=stream, device=rows.device, dtype=rows.dtype)  # Deviation 1
        return torch.cat(
            [self._block(part, draw) for part, draw in zip(rows.split(BLOCK, 1), draws.split(BLOCK), strict=True)]
        )

    def _block(self, rows: Tensor, draws: Tensor) -> Tensor:
        total, positive = rows.sum(0), rows.clamp(min=0).sum(0)
        size = 2 * positive - total  # sum of absolute values
        keep_positive = positive > draws * size  # positive / size is the share of the positive ones
        kept = torch.where(keep_positive, positive, total - positive)
        return kept + self.leak * (total - kept)
