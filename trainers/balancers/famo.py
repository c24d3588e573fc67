"""Fast adaptive multitask optimization."""

import torch
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import LossWeighting, sizes
from mtorl.trainers.update import MultiTaskUpdate


class FAMO(LossWeighting):
    """Weights that learn to lower all logarithms of losses at the same rate, from the losses before and after a step.

    Costs one more forward pass.

    Source: Liu et al., FAMO: Fast Adaptive Multitask Optimization, 2023, algorithm 1.

    Args:
        lr: Step size of the logits (Adam).
        weight_decay: Of the logits.
    """

    logits: Tensor
    moments: Tensor
    counts: Tensor

    needs = "losses, and once more after the step"

    def __init__(self, lr: float = 0.025, weight_decay: float = 1e-3) -> None:
        super().__init__()
        checks.within("(0, inf)", lr=lr)
        checks.within("[0, inf)", weight_decay=weight_decay)
        self.lr, self.weight_decay = lr, weight_decay

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """Logits, their two moments, and how often each was moved."""
        zeros = torch.zeros(tasks, dtype=torch.float64)
        return {"logits": zeros, "moments": torch.zeros(2, tasks, dtype=torch.float64), "counts": zeros.clone()}

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """Weights that sum to one."""
        self._ready(len(losses))
        shares = self.logits[task_ids].softmax(0) / sizes(losses.detach(), self)
        return shares / shares.sum()

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """A step on the parameters, then one on the logits."""
        task_ids, before = update.task_ids.cpu(), update.losses().values
        values = before.to("cpu", torch.float64)
        weights = self.weights(values, task_ids)
        numbers = update.descend_loss((weights * values).sum(), weights)
        with torch.no_grad():
            after = update.losses().values.to("cpu", torch.float64)
        self.learn(values.detach(), after, task_ids)
        return numbers

    def learn(self, before: Tensor, after: Tensor, task_ids: Tensor) -> None:
        """Moves the logits towards the tasks whose loss fell least, given losses `[T]` before and after the step."""
        self._ready(len(before))
        gain = sizes(before, self).log() - sizes(after, self).log()
        shares = self.logits[task_ids].softmax(0)
        slope = shares * (gain - (shares * gain).sum()) + self.weight_decay * self.logits[task_ids]
        self.counts[task_ids] += 1
        first, second = self.moments[0, task_ids], self.moments[1, task_ids]
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        self.moments[0, task_ids], self.moments[1, task_ids] = first, second
        count = self.counts[task_ids]
        unbiased = first / (1 - 0.9**count) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
        self.logits[task_ids] -= self.lr * unbiased
