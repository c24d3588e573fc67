"""From features to actions, and the loss of recorded actions."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from mtorl import InputError
from mtorl.datasets.sampler import TaskBatch

OutputHeads = Literal["shared", "per_task", "linear"]


@dataclass(frozen=True)
class TaskLosses:
    """The losses of one forward pass.

    Attributes:
        values: `[T]`, differentiable, one per task of the batch; each a mean over valid positions.
        features: `[T, B, L, F]`, what the heads saw, for methods that balance at the representation.
        targets: `[T, B, L, A]`, what the heads should have said.
        valid: bool `[T, B, L]`.
        linear: The predictions are linear in the features, the loss is their squared error, and every task has its own
            head.
    """

    values: Tensor
    features: Tensor | None = None
    targets: Tensor | None = None
    valid: Tensor | None = None
    linear: bool = False


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

    @property
    def linear(self) -> bool:
        """See `TaskLosses.linear`."""
        return False

    def task_losses(self, features: Tensor, batch: TaskBatch) -> TaskLosses:
        """The losses of a batch with what balancers at the representation need.

        Args:
            features: `[T, B, L, F]`.
            batch: The windows that they are of.
        """
        values = self.losses(features, batch.actions, batch.valid, batch.task_ids)
        return TaskLosses(values, features, batch.actions, batch.valid, self.linear)

    def task_rows(self) -> list[nn.Parameter]:
        """Parameters whose first axis is the task; none by default."""
        return []

    def strengths(self) -> Tensor | None:
        """Squared norm `[T, F]` of what each task's head has at each feature; None for a shared head."""
        return None


class RegressionHead(Head):
    """`tanh` of a linear map, trained with the squared error (mean over valid steps and action dimensions).

    Args:
        features: F.
        actions: A.
        tasks: T.
        kind: One map for all tasks (shared), one each (per_task), or one each without `tanh` (linear): its actions
            are clipped when acting.
    """

    def __init__(self, features: int, actions: int, tasks: int, kind: OutputHeads = "shared") -> None:
        super().__init__()
        if kind not in get_args(OutputHeads):
            raise InputError(f"output_heads is {kind!r}; expected one of {', '.join(get_args(OutputHeads))}.")
        maps = 1 if kind == "shared" else tasks
        bound = features**-0.5
        self.weight = nn.Parameter(torch.empty(maps, features, actions).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(maps, actions))
        self.per_task, self._linear = kind != "shared", kind == "linear"

    @property
    def linear(self) -> bool:
        """See `TaskLosses.linear`."""
        return self._linear

    def task_rows(self) -> list[nn.Parameter]:
        """Both parameters, if each task has its own."""
        return [self.weight, self.bias] if self.per_task else []

    def strengths(self) -> Tensor | None:
        """See `Head.strengths`."""
        return self.weight.detach().square().sum(-1) if self.per_task else None

    def losses(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.losses`."""
        return masked_mean((self.means(features, task_ids) - targets).square().mean(-1), valid)

    def means(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """Predictions `[T, B, L, A]` from features `[T, B, L, F]` of tasks `[T]`."""
        predicted = self.linear_map(features, task_ids)
        return predicted if self.linear else torch.tanh(predicted)

    def linear_map(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """The same without `tanh`."""
        chosen = task_ids if self.per_task else torch.zeros_like(task_ids)
        flat = features.flatten(1, 2)  # t b l f -> t (b l) f
        predicted = torch.baddbmm(self.bias[chosen][:, None], flat, self.weight[chosen])
        return predicted.view(*features.shape[:3], -1)

    def act(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.act`."""
        if not self.per_task:
            return torch.tanh(torch.addmm(self.bias[0], features, self.weight[0]))
        predicted = torch.einsum("nf,nfa->na", features, self.weight[task_ids]) + self.bias[task_ids]
        return predicted.clamp(-1, 1) if self.linear else torch.tanh(predicted)


class GaussianHead(RegressionHead):
    """A normal distribution around `tanh` of a linear map, trained with its negative log-likelihood.

    The deviation of every action dimension is learned, for all tasks or for each; it does not depend on the features.
    Recorded actions lie in [-1, 1], limits included, so the distribution is not squashed: squashed actions have no
    density at the limits.

    Args:
        features: F.
        actions: A.
        tasks: T.
        kind: See `RegressionHead`; the loss of `linear` is not the squared error here, so it is refused.
    """

    LOWEST, HIGHEST = -4.0, 1.0
    """Limits of the logarithm of the deviation."""

    def __init__(self, features: int, actions: int, tasks: int, kind: OutputHeads = "shared") -> None:
        super().__init__(features, actions, tasks, kind)
        if kind == "linear":
            raise InputError("a gaussian head cannot be linear: its loss is not the squared error. Use per_task.")
        self.spread = nn.Parameter(torch.zeros_like(self.bias))

    def task_rows(self) -> list[nn.Parameter]:
        """All parameters, if each task has its own."""
        return [*super().task_rows(), self.spread] if self.per_task else []

    def deviations(self, task_ids: Tensor) -> Tensor:
        """Standard deviations `[T, 1, 1, A]` of tasks `[T]`."""
        return torch.exp(self._log_std(task_ids))

    def _log_std(self, task_ids: Tensor) -> Tensor:
        chosen = task_ids if self.per_task else torch.zeros_like(task_ids)
        share = torch.sigmoid(self.spread[chosen][:, None, None])  # a limit that can be left again
        return self.LOWEST + (self.HIGHEST - self.LOWEST) * share

    def log_likelihood(self, features: Tensor, targets: Tensor, task_ids: Tensor) -> Tensor:
        """Of recorded actions, `[T, B, L]`; arguments as of `losses`."""
        log_std = self._log_std(task_ids)
        z = (targets - self.means(features, task_ids)) * torch.exp(-log_std)
        return (-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)

    def losses(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.losses`: the mean over action dimensions, too."""
        return masked_mean(-self.log_likelihood(features, targets, task_ids) / targets.shape[-1], valid)


def make_head(
    distribution: Literal["deterministic", "gaussian"], features: int, actions: int, tasks: int, kind: OutputHeads
) -> RegressionHead:
    """The head of that distribution."""
    if distribution not in ("deterministic", "gaussian"):
        raise InputError(f"distribution is {distribution!r}; expected deterministic or gaussian.")
    return (GaussianHead if distribution == "gaussian" else RegressionHead)(features, actions, tasks, kind)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of values `[T, B, L]` over the valid positions of each task, `[T]`; 0 for a task without any."""
    weights = valid.to(values.dtype)
    return (values * weights).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1)
