"""A distribution of actions, with its likelihood."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from mtorl import InputError, checks
from mtorl.agents.heads.base import Head, HeadMaker, OutputHeads, masked_mean
from mtorl.agents.heads.regression import RegressionHead
from mtorl.datasets.spec import DataSpec

Distribution = Literal["deterministic", "gaussian"]


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
        groups: See `RegressionHead`.
    """

    LOWEST, HIGHEST = -4.0, 1.0
    """Limits of the logarithm of the deviation."""

    def __init__(
        self,
        features: int,
        actions: int,
        tasks: int,
        kind: OutputHeads = "shared",
        groups: Sequence[int] | None = None,
    ) -> None:
        super().__init__(features, actions, tasks, kind, groups)
        if kind == "linear":
            raise InputError("a gaussian head cannot be linear: its loss is not the squared error. Use per_task.")
        self.spread = nn.Parameter(torch.zeros_like(self.bias))

    @property
    def plain(self) -> bool:
        """See `Head.plain`."""
        return False

    def task_rows(self) -> list[nn.Parameter]:
        """All parameters, unless all tasks share them."""
        return [*super().task_rows(), self.spread] if self.per_task else []

    def deviations(self, task_ids: Tensor) -> Tensor:
        """Standard deviations `[T, 1, 1, A]` of tasks `[T]`."""
        return torch.exp(self._log_std(task_ids))

    def _log_std(self, task_ids: Tensor) -> Tensor:
        share = torch.sigmoid(self.spread[self.rows(task_ids)][:, None, None])  # a limit that can be left again
        return self.LOWEST + (self.HIGHEST - self.LOWEST) * share

    def log_likelihood(self, features: Tensor, targets: Tensor, task_ids: Tensor) -> Tensor:
        """Of recorded actions, `[T, B, L]`; arguments as of `losses`."""
        log_std = self._log_std(task_ids)
        z = (targets - self.means(features, task_ids)) * torch.exp(-log_std)
        return self.owned_only(-0.5 * z.square() - log_std - 0.5 * math.log(2 * math.pi), task_ids).sum(-1)

    def losses(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.losses`: the mean over action dimensions, too."""
        dimensions = self.action_dims(task_ids, targets.shape[-1])
        if isinstance(dimensions, Tensor):
            dimensions = dimensions[:, None, None]
        return masked_mean(-self.log_likelihood(features, targets, task_ids) / dimensions, valid)


def make_head(
    distribution: Distribution,
    features: int,
    actions: int,
    tasks: int,
    kind: OutputHeads,
    groups: Sequence[int] | None = None,
) -> RegressionHead:
    """The head of that distribution."""
    checks.one_of("distribution", distribution, Distribution)
    return (GaussianHead if distribution == "gaussian" else RegressionHead)(features, actions, tasks, kind, groups)


def build_head(
    head: HeadMaker | None,
    features: int,
    spec: DataSpec,
    kind: OutputHeads,
    distribution: Distribution = "deterministic",
) -> Head:
    """The head that is named, or if none is, that of the distribution.

    Args:
        head: Makes the one that is named.
        features: F.
        spec: What is known of the data.
        kind: The agent's `output_heads`.
        distribution: The agent's, if it has a choice.

    Raises:
        InputError: A head is named beside other options that say what it is to be.
    """
    tasks = len(spec.task_names)
    if head is None:
        return _told(make_head(distribution, features, spec.action_dim, tasks, kind, spec.groups), spec)
    if distribution == "gaussian":
        raise InputError(
            "head is named, and distribution is 'gaussian', which is a head by itself; expected one of them. Leave out "
            "head, or use distribution deterministic where the agent has it."
        )
    if kind != "shared":
        raise InputError(
            f"head is named, and output_heads is {kind!r}; expected one of them. Leave one out; a SmallTowers goes "
            f"around such heads with --agent.head.main RegressionHead --agent.head.main.kind {kind}."
        )
    made = head(features, spec.action_dim, tasks)
    made.expect(torch.tensor(spec.steps))
    return _told(made, spec)


def _told(head: Head, spec: DataSpec) -> Head:
    """The head, which now knows the action dimensions of each task."""
    if spec.own_dimensions is not None:
        sizes = torch.tensor(spec.own_dimensions)[:, 1:]
        head.own((torch.arange(spec.action_dim) < sizes).to(torch.get_default_dtype()))
    return head
