"""Smooth Tchebycheff scalarisation."""

import torch
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import LossWeighting, sizes


class STCH(LossWeighting):
    """Descends a smooth maximum of the losses, so that the worst task counts most.

    With a warm-up the losses are compared as multiples of what they were at its end: `mu log sum exp(log(loss /
    reference) / mu)`; the mean logarithm is descended until then. Without one the losses are compared as they are:
    `mu log sum exp(loss / (T mu))`.

    Source: Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, 2024, equation 8; the
    warm-up as in LibMTL.

    Args:
        mu: Smoothing; towards zero it becomes the maximum.
        warmup: Training steps after which the losses' references are taken, as a mean of their last tenth; below 1, as
            a share of all training steps.
    """

    sums: Tensor
    calls: Tensor

    def __init__(self, mu: float = 1.0, warmup: float = 0.1) -> None:
        super().__init__()
        checks.within("(0, inf)", mu=mu)
        checks.within("[0, inf)", warmup=warmup)
        self.mu, self.warmup = mu, warmup

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """Sum and number of the losses that the references are the mean of, and calls."""
        return {
            "sums": torch.zeros(2, tasks, dtype=torch.float64),
            "calls": torch.zeros((), dtype=torch.int64),
        }

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """The derivative of the smooth maximum by each loss."""
        self._ready(len(losses))
        values, count = sizes(losses.detach(), self), len(losses)
        warmup = self.span(self.warmup)
        if not warmup:
            return (values / (count * self.mu)).softmax(0) / count
        calls = int(self.calls)
        self.calls += 1
        if calls < warmup:
            if calls >= warmup - max(warmup // 10, 1):
                self.sums[0, task_ids] += values
                self.sums[1, task_ids] += 1
            return 1 / (count * values)
        new = self.sums[1, task_ids] == 0  # not seen at the end of the warm-up: what it is now
        self.sums[0, task_ids] += torch.where(new, values, 0.0)
        self.sums[1, task_ids] += new
        total, number = self.sums[:, task_ids]
        references = total / number
        return ((values / references).log() / self.mu).softmax(0) / values
