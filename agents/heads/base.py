"""From features to actions, and the loss of recorded actions."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mtorl.datasets.batch import TaskBatch

OutputHeads = Literal["shared", "per_task", "linear", "per_group"]
"""The usual heads: one for all tasks, of each task, of each task and linear, of each group of tasks."""


@dataclass(frozen=True)
class TaskLosses:
    """The losses of one forward pass.

    Attributes:
        values: `[T]`, differentiable, one per task of the batch; each a mean over valid positions.
        features: `[T, B, L, F]`, what the heads saw, for methods that balance at the representation.
        targets: `[T, B, L, A]`, what the heads should have said; zero, as the predictions, where tasks have padding.
        valid: bool `[T, B, L]`.
        predictions: `[T, B, L, A]`, what the heads said, where the loss is their squared error (a mean over the task's
            action dimensions, and over valid positions); None where it is another.
        owned: `[T, A]`, see `Head.owned`.
        linear: The predictions are linear in the features, the loss is their squared error, and every task has its own
            head.
    """

    values: Tensor
    features: Tensor | None = None
    targets: Tensor | None = None
    valid: Tensor | None = None
    linear: bool = False
    predictions: Tensor | None = None
    owned: Tensor | None = None


@dataclass(frozen=True)
class Relations:
    """What heads say that learn from each other.

    Attributes:
        weights: `[tasks, tasks]`, how much each task takes from every other; rows sum to one, or to zero for a task
            that is alone.
        deviations: `[T]` of a batch's tasks, standard deviation of actions by what is not known of the head's weights,
            mean over valid positions and action dimensions.
    """

    weights: Tensor
    deviations: Tensor


class Head(nn.Module, ABC):
    """The last layer of a policy.

    Attributes:
        per_task: Each task acts with its own.
        owned: `[tasks, A]`, one where a task has the action dimension, zero where there is padding; None: all have all.
            What stands there is zero, and no loss is charged for it.
    """

    per_task: bool
    owned: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("owned", None, persistent=False)

    def own(self, owned: Tensor | None) -> None:
        """Told once which action dimensions each task has, see `owned`."""
        self.owned = owned

    def owned_of(self, task_ids: Tensor) -> Tensor | None:
        """`owned` of tasks `[T]`: `[T, A]`."""
        return None if self.owned is None else self.owned[task_ids]

    def owned_only(self, values: Tensor, task_ids: Tensor) -> Tensor:
        """Values `[T, ..., A]` of tasks `[T]`, with zeros where they have no action dimension."""
        if self.owned is None:
            return values
        return values * self.owned[task_ids].view(task_ids.shape[0], *[1] * (values.ndim - 2), -1)

    def action_dims(self, task_ids: Tensor, actions: int) -> Tensor | int:
        """How many of so many action dimensions tasks `[T]` have: `[T]`, or one number for all."""
        return actions if self.owned is None else self.owned[task_ids].sum(-1)

    def action_mean(self, values: Tensor, task_ids: Tensor) -> Tensor:
        """Means `[T, B, L]` of values `[T, B, L, A]` over the action dimensions that a task has."""
        if self.owned is None:
            return values.mean(-1)
        mean = self.owned[task_ids] / self.owned[task_ids].sum(-1, keepdim=True)
        return (values * mean[:, None, None]).sum(-1)

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

    @abstractmethod
    def means(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """Predictions `[T, B, L, A]` from features `[T, B, L, F]` of tasks `[T]`, without any noise."""

    def predictions(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """What a loss is made of, shaped as `means`: those by default; heads with noise draw it while training."""
        return self.means(features, task_ids)

    def additions(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """What the head adds to a loss `[T]` that others make of its `predictions`; nothing by default.

        Arguments as of `losses`. The unit is that of the squared error, mean over action dimensions.
        """
        return torch.zeros_like(features[:, 0, 0, 0])

    @property
    def related(self) -> bool:
        """Tasks learn from each other's heads: there are `relations`."""
        return False

    def relations(self, features: Tensor, valid: Tensor, task_ids: Tensor) -> Relations:
        """What tasks take from each other; only of heads that are `related`. Arguments as of `losses`."""
        raise NotImplementedError(f"{type(self).__name__} has no relations.")

    def expect(self, samples: Tensor) -> None:
        """Told once how many recorded steps `[tasks]` there are of each task."""

    def progressed(self, share: float) -> None:
        """Told before each move how much of its training is done, in [0, 1)."""

    def strip(self) -> None:
        """Lets go of what only training needs; nothing by default."""

    def training_only(self) -> list[nn.Parameter]:
        """What `strip` lets go of."""
        return []

    @property
    def linear(self) -> bool:
        """See `TaskLosses.linear`."""
        return False

    @property
    def plain(self) -> bool:
        """Predictions lie in [-1, 1], and `losses` are made of their squared errors and of `additions` alone."""
        return True

    def forward(self, features: Tensor, batch: TaskBatch) -> TaskLosses:
        """The losses of a batch with what balancers at the representation need.

        Args:
            features: `[T, B, L, F]`.
            batch: The windows that they are of.
        """
        values = self.losses(features, batch.actions, batch.valid, batch.task_ids)
        owned = self.owned_of(batch.task_ids)
        return TaskLosses(values, features, batch.actions, batch.valid, self.linear, owned=owned)

    def task_rows(self) -> list[nn.Parameter]:
        """Parameters whose rows belong to tasks, one to each or as `row_of` says; none by default."""
        return []

    @property
    def row_of(self) -> Tensor | None:
        """Which row of these is a task's, `[T]`, where tasks of a group have one in common; None: each its own."""
        return None

    def private(self) -> list[nn.Module]:
        """The parts all of whose parameters belong to single tasks: by default everything or nothing."""
        return [self] if self.task_rows() else []

    def strengths(self) -> Tensor | None:
        """Squared norm `[T, F]` of what each task's head has at each feature; None for a shared head."""
        return None


HeadMaker = Callable[[int, int, int], Head]
"""Makes a head that reads so many features and gives so many action dimensions, for that many tasks."""


def in_single(values: Tensor) -> AbstractContextManager[object]:
    """Where layers compute in the precision of their parameters though those before them do not; a context."""
    if values.is_meta:  # has shapes only, and no autocast
        return nullcontext()
    return torch.autocast(values.device.type, enabled=False)


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean of values `[T, B, L]` over the valid positions of each task, `[T]`; 0 for a task without any."""
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    weights = valid.to(values.dtype)
    return (values * weights).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1)
