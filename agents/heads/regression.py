"""Actions themselves, with the squared error."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mtorl import InputError, checks
from mtorl.agents.heads.base import Head, OutputHeads, TaskLosses, in_single, masked_mean
from mtorl.datasets.batch import TaskBatch


class RegressionHead(Head):
    """`tanh` of a linear map, trained with the squared error (mean over valid steps and action dimensions).

    Args:
        features: F.
        actions: A.
        tasks: T.
        kind: One map for all tasks (shared), one each (per_task), one for each group (per_group), or one each without
            `tanh` (linear): its actions are clipped when acting.
        groups: `[T]`, the group of each task, for per_group.

    Raises:
        InputError: The kind is unknown, or asks for groups and there are none.
    """

    _row_of: Tensor | None

    def __init__(
        self,
        features: int,
        actions: int,
        tasks: int,
        kind: OutputHeads = "shared",
        groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        checks.one_of("output_heads", kind, OutputHeads)
        if kind == "per_group" and groups is None:
            raise InputError("output_heads is per_group, but the tasks are in no groups. Add --grouping FILE.")
        rows = list(groups) if groups is not None and kind == "per_group" else None
        self.register_buffer("_row_of", None if rows is None else torch.tensor(rows), persistent=False)
        maps = 1 if kind == "shared" else tasks if rows is None else max(rows) + 1
        bound = features**-0.5
        self.weight = nn.Parameter(torch.empty(maps, features, actions).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(maps, actions))
        self.per_task, self._linear = kind != "shared", kind == "linear"

    @property
    def linear(self) -> bool:
        """See `TaskLosses.linear`."""
        return self._linear

    @property
    def plain(self) -> bool:
        """See `Head.plain`."""
        return not self._linear

    def task_rows(self) -> list[nn.Parameter]:
        """Both parameters, unless all tasks share them."""
        return [self.weight, self.bias] if self.per_task else []

    @property
    def row_of(self) -> Tensor | None:
        """See `Head.row_of`."""
        return self._row_of

    def rows(self, task_ids: Tensor) -> Tensor:
        """The rows of tasks."""
        if not self.per_task:
            return torch.zeros_like(task_ids)
        return task_ids if self._row_of is None else self._row_of[task_ids]

    def strengths(self) -> Tensor | None:
        """See `Head.strengths`."""
        if not self.per_task:
            return None
        strengths = self.weight.detach().square().sum(-1)
        return strengths if self._row_of is None else strengths[self._row_of]

    def losses(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.losses`."""
        return self._squared_error(self.means(features, task_ids), targets, valid, task_ids)

    def forward(self, features: Tensor, batch: TaskBatch) -> TaskLosses:
        """See `Head.forward`; with the predictions."""
        if type(self).losses is not RegressionHead.losses:  # those of a class whose loss is another say little of it
            return super().forward(features, batch)
        predictions = self.means(features, batch.task_ids)
        values = self._squared_error(predictions, batch.actions, batch.valid, batch.task_ids)
        owned = self.owned_of(batch.task_ids)
        return TaskLosses(values, features, batch.actions, batch.valid, self.linear, predictions, owned)

    def means(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """Predictions `[T, B, L, A]` from features `[T, B, L, F]` of tasks `[T]`."""
        predicted = self.linear_map(features, task_ids)
        return self.owned_only(predicted if self.linear else torch.tanh(predicted), task_ids)

    def _squared_error(self, predictions: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """Of predictions `[T, B, L, A]`: the mean over action dimensions and valid positions of each task, `[T]`."""
        return masked_mean(self.action_mean((predictions - targets).square(), task_ids), valid)

    def linear_map(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """The same without `tanh`, and with whatever there is where tasks have padding."""
        chosen = self.rows(task_ids)
        flat = features.flatten(1, 2).to(self.weight.dtype)  # t b l f -> t (b l) f
        with in_single(flat):
            predicted = torch.baddbmm(self.bias[chosen][:, None], flat, self.weight[chosen])
        return predicted.view(*features.shape[:3], -1)

    def act(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.act`."""
        if not self.per_task:
            return self.owned_only(torch.tanh(torch.addmm(self.bias[0], features, self.weight[0])), task_ids)
        chosen = self.rows(task_ids)
        predicted = torch.einsum("nf,nfa->na", features, self.weight[chosen]) + self.bias[chosen]
        return self.owned_only(predicted.clamp(-1, 1) if self.linear else torch.tanh(predicted), task_ids)
