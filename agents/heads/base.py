"""From features to actions, and the loss of recorded actions."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from mtorl.datasets.sampler import TaskBatch

OutputHeads = Literal["shared", "per_task", "linear", "per_group"]


@dataclass(frozen=True)
class TaskLosses:
    """The losses of one forward pass.

    Attributes:
        values: `[T]`, differentiable, one per task of the batch; each a mean over valid positions.
        features: `[T, B, L, F]`, what the heads saw, for methods that balance at the representation.
        targets: `[T, B, L, A]`, what the heads should have said.
        valid: bool `[T, B, L]`.
        predictions: `[T, B, L, A]`, what the heads said, where the loss is their squared error (a mean over the last
            axis, and over valid positions); None where it is another.
        linear: The predictions are linear in the features, the loss is their squared error, and every task has its own
            head.
    """

    values: Tensor
    features: Tensor | None = None
    targets: Tensor | None = None
    valid: Tensor | None = None
    linear: bool = False
    predictions: Tensor | None = None


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

    def forward(self, features: Tensor, batch: TaskBatch) -> TaskLosses:
        """The losses of a batch with what balancers at the representation need.

        Args:
            features: `[T, B, L, F]`.
            batch: The windows that they are of.
        """
        values = self.losses(features, batch.actions, batch.valid, batch.task_ids)
        return TaskLosses(values, features, batch.actions, batch.valid, self.linear)

    def task_rows(self) -> list[nn.Parameter]:
        """Parameters whose rows belong to tasks, one to each or as `row_of` says; none by default."""
        return []

    @property
    def row_of(self) -> Tensor | None:
        """Which row of these is a task's, `[T]`, where tasks of a group have one in common; None: each its own."""
        return None

    def strengths(self) -> Tensor | None:
        """Squared norm `[T, F]` of what each task's head has at each feature; None for a shared head."""
        return None


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of values `[T, B, L]` over the valid positions of each task, `[T]`; 0 for a task without any."""
    weights = valid.to(values.dtype)
    return (values * weights).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1)
