"""Mean losses over periods of training, in place of the epochs of supervised learning."""

import torch
from torch import Tensor, nn


class PeriodMeans(nn.Module):
    """The mean loss of every task over the last two complete periods.

    Args:
        tasks: T.
        period: Calls of `add` in one period.

    Attributes:
        last: `[T]`, mean over the last complete period; NaN where a task has none yet.
        before: `[T]`, mean over the one before it; NaN where a task has none yet.
    """

    last: Tensor
    before: Tensor
    _sum: Tensor
    _count: Tensor
    _calls: Tensor

    def __init__(self, tasks: int, period: int) -> None:
        super().__init__()
        self.period = period
        for name in ("last", "before"):
            self.register_buffer(name, torch.full((tasks,), float("nan"), dtype=torch.float64))
        for name in ("_sum", "_count"):
            self.register_buffer(name, torch.zeros(tasks, dtype=torch.float64))
        self.register_buffer("_calls", torch.zeros((), dtype=torch.int64))

    def add(self, losses: Tensor, task_ids: Tensor) -> None:
        """Adds the losses `[T]` of the tasks with these ids `[T]`; closes the period when it is full."""
        self._sum[task_ids] += losses.detach().to(self._sum)
        self._count[task_ids] += 1
        self._calls += 1
        if int(self._calls) % self.period == 0:
            seen = self._count > 0
            self.before[seen] = self.last[seen]
            self.last[seen] = self._sum[seen] / self._count[seen]
            self._sum.zero_()
            self._count.zero_()
