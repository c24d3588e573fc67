"""Actions themselves, with the squared error."""

import torch
from torch import Tensor, nn

from mtorl import checks
from mtorl.agents.heads.base import Head, OutputHeads, masked_mean


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
        checks.one_of("output_heads", kind, OutputHeads)
        maps = 1 if kind == "shared" else tasks
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
