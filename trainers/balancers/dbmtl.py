"""Dual balancing of losses and gradients."""

import torch
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import MatrixAggregation, sizes


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
        checks.within("[0, 1)", beta=beta)
        checks.within("[0, inf)", decay=decay)
        self.beta, self.decay = beta, decay

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """The averaged gradient of every task, and how many batches there were."""
        return {"average": torch.zeros(tasks, size if self.beta else 0), "calls": torch.zeros((), dtype=torch.int64)}

    def aggregate(self, rows: Tensor, losses: Tensor | None = None, task_ids: Tensor | None = None) -> Tensor:
        """See `MatrixAggregation.aggregate`."""
        losses, task_ids = self._defaults(rows, losses, task_ids)
        self.calls += 1
        scale = 1 / sizes(losses, self)
        if self.beta:
            self.average = self.average.to(rows)
            share = self.beta / float(self.calls) ** self.decay
            rows = self.average[task_ids].mul_(share).addcmul_(rows, ((1 - share) * scale)[:, None])
            self.average[task_ids] = rows
            scale = torch.ones_like(losses)
        norms = rows.norm(dim=1) * scale
        weights = torch.where(norms > 0, norms.max() / norms.clamp(min=1e-30), 0.0)
        self.last_weights = weights * scale
        return self.last_weights @ rows
