"""Small towers beside the head, for training only (Wang et al., 2020). Written from the abstract."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtorl import checks
from mtorl.agents.heads.base import Head, HeadMaker, Relations, in_single, masked_mean
from mtorl.agents.heads.regression import RegressionHead

Tower = Literal["linear", "bottleneck"]


class SmallTowers(Head):
    """A head, and beside it an under-parameterised one of each task that only teaches the features.

    The loss of a task is that of the main head and `gamma` times that of its tower, which predicts the same actions
    from the same features: features must be of use even to a head that can do little with them. Acting, towers are
    gone.

    Deviation 1: the paper's losses are those of its labels; a tower's is the squared error of its actions, whatever the
    main head's is. Its weight does not change in training.

    Source: Wang et al., Small Towers Make Big Differences, 2020.

    Args:
        features: F.
        actions: A.
        tasks: T.
        main: The head that acts; one regression head that tasks share by default. Its options stand below it:
            `--agent.head.main RegressionHead --agent.head.main.kind per_task`.
        tower: What predicts beside it: one linear map (linear), or two with few hidden units (bottleneck).
        width: Hidden units of a bottleneck.
        gamma: Weight of the towers' loss.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        tasks: int,
        main: HeadMaker | None = None,
        tower: Tower = "linear",
        width: int = 8,
        gamma: float = 0.3,
    ) -> None:
        super().__init__()
        checks.one_of("tower", tower, Tower)
        checks.at_least(1, width=width)
        checks.within("[0, inf)", gamma=gamma)
        self.gamma = gamma
        self.main: Head = RegressionHead(features, actions, tasks) if main is None else main(features, actions, tasks)
        sizes = (features, actions) if tower == "linear" else (features, width, actions)
        self.towers: Towers | None = Towers(tasks, sizes)
        self.per_task = self.main.per_task

    def own(self, owned: Tensor | None) -> None:
        """See `Head.own`."""
        super().own(owned)
        self.main.own(owned)

    def losses(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.losses`; without towers that of the main head."""
        return self.main.losses(features, targets, valid, task_ids) + self._lesson(features, targets, valid, task_ids)

    def additions(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.additions`: what the towers and the main head add."""
        own = self.main.additions(features, targets, valid, task_ids)
        return own + self._lesson(features, targets, valid, task_ids)

    def _lesson(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        if self.towers is None:
            return torch.zeros_like(features[:, 0, 0, 0])
        errors = (self.towers(features, task_ids) - targets).square()  # Deviation 1
        return self.gamma * masked_mean(self.action_mean(errors, task_ids), valid)

    @property
    def plain(self) -> bool:
        """See `Head.plain`: of the main head."""
        return self.main.plain

    def means(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """Those of the main head."""
        return self.main.means(features, task_ids)

    def predictions(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """Those of the main head."""
        return self.main.predictions(features, task_ids)

    @property
    def related(self) -> bool:
        """See `Head.related`: of the main head."""
        return self.main.related

    def relations(self, features: Tensor, valid: Tensor, task_ids: Tensor) -> Relations:
        """Those of the main head."""
        return self.main.relations(features, valid, task_ids)

    def act(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.act`: the main head alone."""
        return self.main.act(features, task_ids)

    def expect(self, samples: Tensor) -> None:
        """See `Head.expect`."""
        self.main.expect(samples)

    def progressed(self, share: float) -> None:
        """See `Head.progressed`."""
        self.main.progressed(share)

    def strip(self) -> None:
        """Lets go of the towers."""
        self.towers = None
        self.main.strip()

    def training_only(self) -> list[nn.Parameter]:
        """The towers."""
        return [*self._own(), *self.main.training_only()]

    def task_rows(self) -> list[nn.Parameter]:
        """All parameters of the towers, and those of the main head that are one for each task."""
        return [*self._own(), *self.main.task_rows()]

    def private(self) -> list[nn.Module]:
        """The towers, and what of the main head is."""
        return [*([] if self.towers is None else [self.towers]), *self.main.private()]

    def strengths(self) -> Tensor | None:
        """See `Head.strengths`: of the main head."""
        return self.main.strengths()

    def _own(self) -> list[nn.Parameter]:
        return [] if self.towers is None else list(self.towers.parameters())


class Towers(nn.Module):
    """One or two linear maps of each task, with ReLU between them and `tanh` behind.

    Args:
        tasks: T.
        sizes: Inputs, hidden units if there are two maps, and outputs.
    """

    def __init__(self, tasks: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        shapes = list(pairwise(sizes))
        self.weights = nn.ParameterList([torch.empty(tasks, a, b).uniform_(-(a**-0.5), a**-0.5) for a, b in shapes])
        self.biases = nn.ParameterList([torch.zeros(tasks, b) for _, b in shapes])

    def forward(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """Actions `[T, B, L, A]` from features `[T, B, L, F]` of tasks `[T]`."""
        values = features.flatten(1, 2).to(self.weights[0].dtype)  # t b l f -> t (b l) f
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = functional.relu(values) if number else values
            with in_single(values):
                values = torch.baddbmm(bias[task_ids][:, None], values, weight[task_ids])
        return torch.tanh(values).unflatten(1, features.shape[1:3])
