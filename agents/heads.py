"""From features to actions, and the loss of recorded actions."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

OutputHeads = Literal["shared", "per_task"]


class Head(nn.Module, ABC):
    """The last layer of a policy."""

    @abstractmethod
    def losses(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """Loss of each task, a mean over valid positions.

        Args:
            features: `[T, B, L, F]`.
            targets: Recorded actions `[T, B, L, A]` in [-1, 1].
            valid: bool `[T, B, L]`.
            task_ids: `[T]`.

        Returns:
            `[T]`.
        """

    @abstractmethod
    def act(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """Actions `[N, A]` in [-1, 1] from features `[N, F]` of tasks `[N]`."""

    def task_rows(self) -> list[nn.Parameter]:
        """Parameters whose first axis is the task; none by default."""
        return []


class RegressionHead(Head):
    """`tanh` of a linear map, trained with the squared error (mean over valid steps and action dimensions).

    Args:
        features: F.
        actions: A.
        tasks: Number of tasks if each has its own map, None for one map.
    """

    def __init__(self, features: int, actions: int, tasks: int | None = None) -> None:
        super().__init__()
        maps = tasks or 1
        bound = features**-0.5
        self.weight = nn.Parameter(torch.empty(maps, features, actions).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(maps, actions))
        self.per_task = tasks is not None

    def task_rows(self) -> list[nn.Parameter]:
        """Both parameters, if each task has its own."""
        return [self.weight, self.bias] if self.per_task else []

    def losses(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.losses`."""
        chosen = task_ids if self.per_task else torch.zeros_like(task_ids)
        flat = features.flatten(1, 2)  # t b l f -> t (b l) f
        predicted = torch.tanh(torch.baddbmm(self.bias[chosen][:, None], flat, self.weight[chosen]))
        error = (predicted.view(targets.shape) - targets).square().mean(-1)
        return masked_mean(error, valid)

    def act(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.act`."""
        if not self.per_task:
            return torch.tanh(torch.addmm(self.bias[0], features, self.weight[0]))
        return torch.tanh(torch.einsum("nf,nfa->na", features, self.weight[task_ids]) + self.bias[task_ids])


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of values `[T, B, L]` over the valid positions of each task, `[T]`; 0 for a task without any."""
    weights = valid.to(values.dtype)
    return (values * weights).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1)
