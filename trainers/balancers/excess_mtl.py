"""Excess risks."""

import torch
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import MatrixAggregation


class ExcessMTL(MatrixAggregation):
    """Weights that grow for the tasks whose loss can still fall most, not for those whose loss is large.

    What a loss is above the least that it could be is estimated from the gradient and a diagonal of the Hessian, for
    which sums of squared gradients stand in: noise in the actions of a task makes its loss larger, but not this. It is
    counted in multiples of what it was in the task's first batches.

    Source: He et al., Robust Multi-Task Learning with Excess Risks, 2024; TorchJD (MIT) was consulted for the estimate.
    The default step size is ours. Needs memory for the squares: a matrix of the size of the task gradients.

    Args:
        step_size: Of the weights' logarithms.
        warmup: Training steps in which all weights are equal; excess risks are compared to their mean. Below 1, a
            share of all training steps.
    """

    squares: Tensor
    logits: Tensor
    first: Tensor

    def __init__(self, step_size: float = 0.01, warmup: float = 0.05) -> None:
        super().__init__()
        checks.within("(0, inf)", step_size=step_size)
        checks.within("(0, inf)", warmup=warmup)
        self.step_size, self.warmup = step_size, warmup

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """Sums of squared gradients, logarithms of weights, sums and numbers of each task's first excess risks."""
        return {
            "squares": torch.zeros(tasks, size),
            "logits": torch.zeros(tasks, dtype=torch.float64),
            "first": torch.zeros(2, tasks, dtype=torch.float64),
        }

    def aggregate(self, rows: Tensor, losses: Tensor | None = None, task_ids: Tensor | None = None) -> Tensor:
        """See `MatrixAggregation.aggregate`."""
        _, task_ids = self._defaults(rows, losses, task_ids)
        self.squares = self.squares.to(rows)
        places = task_ids.cpu()
        risks = torch.stack(
            [self._risk(row, self.squares[task]) for row, task in zip(rows, task_ids.tolist(), strict=True)]
        ).to("cpu", torch.float64)
        total, count = self.first[:, places]
        warming = count < self.span(self.warmup)
        reference = total / count.clamp(min=1)
        ratios = torch.where(reference > 0, risks / reference.clamp(min=1e-300), 1.0)
        self.first[:, places] += torch.stack([risks, torch.ones_like(risks)]) * warming
        self.logits[places] += torch.where(warming, 0.0, self.step_size * ratios)
        self.last_weights = self.logits[places].softmax(0)
        return self.last_weights.to(rows) @ rows

    def _risk(self, row: Tensor, squares: Tensor) -> Tensor:
        """Excess risk of a task with this gradient `[P]`, whose square is added to the sums `[P]`."""
        squares.addcmul_(row, row)
        return (row * row / squares.sqrt().clamp(min=torch.finfo(row.dtype).tiny)).sum()
