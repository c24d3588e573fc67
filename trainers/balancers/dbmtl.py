"""Dual balancing of losses and gradients."""

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.trainers.balancers.base import MatrixAggregation, check_positive


class DBMTL(MatrixAggregation):
    """Gradients of the logarithms of the losses, averaged over batches and made as long as the longest one.

    Source: Lin et al., Dual-Balancing for Multi-Task Learning, 2023, algorithm 1. The moving average starts at zero
    and is not corrected for it, as published.

    Args:
        beta: Share of the old average; 0 needs no memory. On top of AdamW's own average the published 0.9 slows
            training down several times on Meta-World MT10; 0 does not.
        decay: Power of the step with which beta falls.
    """

    average: Tensor
    calls: Tensor

    def __init__(self, beta: float = 0.9, decay: float = 0.0) -> None:
        super().__init__()
        if not 0 <= beta < 1 or decay < 0:
            raise InputError(f"beta is {beta}, decay {decay}; expected beta in [0, 1) and no negative decay.")
        self.beta, self.decay = beta, decay

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """The averaged gradient of every task, and how many batches there were."""
        return {"average": torch.zeros(tasks, size if self.beta else 0), "calls": torch.zeros((), dtype=torch.int64)}

    def aggregate(self, rows: Tensor, losses: Tensor | None = None, task_ids: Tensor | None = None) -> Tensor:
        """See `MatrixAggregation.aggregate`."""
        losses, task_ids = self._defaults(rows, losses, task_ids)
        check_positive(losses, self)
        self.calls += 1
        scale = 1 / (losses + 1e-8)
        if self.beta:
            self.average = self.average.to(rows)
            share = self.beta / float(self.calls) ** self.decay
            rows = self.average[task_ids].mul_(share).addcmul_(rows, ((1 - share) * scale)[:, None])
            self.average[task_ids] = rows
            scale = torch.ones_like(losses)
        norms = rows.norm(dim=1) * scale
        weights = torch.where(norms > 0, norms.max() / norms.clamp(min=1e-30), 0.0)
        return (weights * scale) @ rows
