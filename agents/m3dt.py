"""A decision transformer with an expert for each group of tasks (Kong et al., 2025), trained in three stages.

| stage | learns | what experts add to each block's feed-forward network |
|---|---|---|
| backbone | the transformer, the embeddings and the head | nothing |
| experts | the experts alone | what the expert of the task's group says |
| router | the routers alone | a mixture of all, which the block's router decides on for every token |

Deviations:
1. The backbone is this package's decision transformer, without a prompt.
2. Routers have one hidden layer instead of four.
3. The experts are trained in one run, so that they are clipped together, and that an expert none of whose tasks is in a
   batch still moves by its momentum (`tasks_per_batch`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtorl import InputError, checks
from mtorl.agents.base import Phase, TaskLosses
from mtorl.agents.decision_transformer import DecisionTransformer
from mtorl.agents.parameters import ParameterSpace, held
from mtorl.agents.transformer import Block, FeedForward, initialise_transformer
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.grouping import same_groups
from mtorl.datasets.spec import DataSpec

STAGES = ("backbone", "experts", "router")
BACKBONE, EXPERTS, ROUTER = range(3)


class M3DT(DecisionTransformer):  # Deviation 1
    """A decision transformer; then an expert for each group of tasks in every block; then routers that mix them.

    Groups are those of `mtorl group RUN --groups N --out FILE`, of a run with a transformer on the same tasks, given as
    `--grouping FILE`, or as the list that stands under `groups` in the file.

    Source: Kong et al., Mastering Massive Multi-Task Reinforcement Learning via Mixture-of-Expert Decision Transformer,
    2025, section 4.

    Args:
        spec: What is known of the data.
        groups: Names of the tasks of each group; every task is in one. By default those of `--grouping`.
        units: Hidden units of an expert; 4 * width by default, as published.
        backbone_until: Share of training after which the experts are trained.
        experts_until: Share of training after which the routers are trained.
        options: Of `DecisionTransformer`, but for `ffn` and `task_gain`.
    """

    stage: Tensor
    groups: Tensor

    def __init__(
        self,
        spec: DataSpec,
        groups: Sequence[Sequence[str]] | None = None,
        units: int | None = None,
        backbone_until: float = 0.5,
        experts_until: float = 0.8,
        **options: Any,
    ) -> None:
        super().__init__(spec, **options)  # Deviation 1
        if self.router is not None or self.gains.task_rows():
            raise InputError("M3DT has experts in its feed-forward networks: leave ffn and task_gain out.")
        checks.at_least(1, units=units)
        if not 0 < backbone_until < experts_until < 1:
            raise InputError(
                f"backbone_until is {backbone_until} and experts_until {experts_until}; expected "
                "0 < backbone_until < experts_until < 1."
            )
        self.register_buffer("groups", _membership(spec, groups), persistent=False)
        self.register_buffer("stage", torch.tensor(BACKBONE))
        (whole,) = self.phases
        moved = nn.ParameterList(self.parameters())
        experts = [Experts(self.width, self.groups.shape[1], units or 4 * self.width) for _ in self.backbone.blocks]
        for block, mine in zip(self.backbone.blocks, experts, strict=True):
            block.experts = mine
        initialise_transformer(nn.ModuleList(experts))
        own, routers = nn.ModuleList([it.own for it in experts]), nn.ModuleList([it.router for it in experts])
        maskable = [part for it in experts for part in (it.own.expand, it.own.contract)]
        self.phases = (
            self._stage_phase(BACKBONE, whole.space, moved, 0.0, backbone_until),
            # Deviation 3: all experts in one phase
            self._stage_phase(
                EXPERTS, ParameterSpace(self, [], maskable, [own], [own]), own, backbone_until, experts_until
            ),
            self._stage_phase(ROUTER, ParameterSpace(self, [], routers, [routers]), routers, experts_until, 1.0),
        )

    def _stage_phase(self, stage: int, space: ParameterSpace, module: nn.Module, start: float, stop: float) -> Phase:
        losses, reached = partial(self._stage_losses, stage), partial(self._reached, stage)
        return Phase(STAGES[stage], losses, space, module, start=start, stop=stop, after_step=reached)

    def _reached(self, stage: int) -> None:
        self.stage.fill_(stage)

    def _stage_losses(self, stage: int, batch: TaskBatch) -> TaskLosses:
        """The losses of a stage; no gradient reaches what its phase does not move."""
        whole, backbone, head = stage == BACKBONE, self.backbone, self.head
        transform: Callable[..., Tensor] = backbone if whole else held(backbone, self.phases[stage].module)
        compare: Callable[..., TaskLosses] = head if whole else held(head)
        with torch.set_grad_enabled(whole and torch.is_grad_enabled()):
            tokens, _, rows = self._inputs(batch)
        outputs = transform(tokens, feed_forwards=self._of_stage(stage, rows))
        return compare(self._at_observations(outputs, batch), batch)

    @property
    def needs_task(self) -> bool:
        """Whether acting depends on the task's identity: experts without routers do, too."""
        return super().needs_task or int(self.stage) == EXPERTS

    def _feed_forwards(self, tokens: Tensor, task_ids: Tensor, prompt: Tensor | None = None) -> list[FeedForward]:
        """See `DecisionTransformer`: acting is as in the stage that training is in."""
        return self._of_stage(int(self.stage), task_ids)

    def _of_stage(self, stage: int, task_ids: Tensor) -> list[FeedForward]:
        """The feed-forward networks of the blocks in a stage, for tasks `[M]`."""
        if stage == BACKBONE:
            return []
        groups = self.groups[task_ids][:, None]
        shares: Shares = Experts.mixture if stage == ROUTER else lambda _, normed: groups.to(normed)
        return [_with_experts(block, shares) for block in self.backbone.blocks]

    @torch.no_grad()
    def routing(self, batch: TaskBatch) -> list[Tensor]:
        """See `Agent.routing`: of each block the shares of the experts, as in the stage that training is in."""
        stage = int(self.stage)
        if stage != ROUTER:
            count = len(self.backbone.blocks) if stage == EXPERTS else 0
            return [self.groups[batch.task_ids].to(batch.observations)] * count
        found: list[Tensor] = []

        def noted(experts: Experts, normed: Tensor) -> Tensor:
            found.append(experts.mixture(normed))
            return found[-1]

        blocks = [_with_experts(block, noted) for block in self.backbone.blocks]
        self.backbone(self._inputs(batch)[0], feed_forwards=blocks)
        return [it.unflatten(0, (len(batch.task_ids), -1)).mean((1, 2)) for it in found]


class Experts(nn.Module):
    """Feed-forward networks side by side, and a router that mixes them for every token.

    Args:
        width: Size of a token.
        count: G, networks.
        units: Hidden units of each.
    """

    def __init__(self, width: int, count: int, units: int) -> None:
        super().__init__()
        self.own = FeedForwards(width, count, units)
        # Deviation 2: one hidden layer
        self.router = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, count))

    def mixture(self, tokens: Tensor) -> Tensor:
        """The share `[M, S, G]` that the router gives each expert, from tokens `[M, S, width]`."""
        return self.router(tokens).softmax(-1)


class FeedForwards(nn.Module):
    """The networks of `Experts`, as two matrices."""

    def __init__(self, width: int, count: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.expand = nn.Linear(width, count * units)
        self.contract = nn.Linear(count * units, width, bias=False)
        self.bias = nn.Parameter(torch.zeros(count, width))

    def forward(self, tokens: Tensor, shares: Tensor) -> Tensor:
        """The mixture `[M, S, width]` of what they say of tokens, with shares `[M, S or 1, G]`."""
        hidden = functional.relu(self.expand(tokens)) * shares.repeat_interleave(self.units, -1)
        return self.contract(hidden) + shares @ self.bias


Shares = Callable[[Experts, Tensor], Tensor]
"""The share `[M, S or 1, G]` of each expert, from the experts and normalised tokens `[M, S, width]`."""


def _with_experts(block: nn.Module, shares: Shares) -> FeedForward:
    """The own feed-forward network of a block that has experts, and what these add to it."""
    assert isinstance(block, Block) and isinstance(block.experts, Experts)
    own, experts = block.feed_forward, block.experts
    return lambda normed: own(normed) + experts.own(normed, shares(experts, normed))


def _membership(spec: DataSpec, groups: Sequence[Sequence[str]] | None) -> Tensor:
    """Whether each task is in each group `[T, G]`: in those that are named, or in those of the data's tasks.

    Raises:
        InputError: There are none, or both and they differ.
    """
    if groups is None and spec.groups is None:
        raise InputError(
            "M3DT has no groups: give --grouping FILE, or the names of each group's tasks as agent.groups."
        )
    given = spec.grouped if groups is None else groups
    named = [[group] if isinstance(group, str) else list(group) for group in given]
    membership = _one_group_each(spec.task_names, named)
    if groups is not None and spec.groups is not None:
        group_of = {name: number for number, group in enumerate(named) for name in group}
        if not same_groups([group_of[name] for name in spec.task_names], spec.groups):
            raise InputError(
                f"agent.groups is {named}, but --grouping says "
                f"{[list(group) for group in spec.grouped]}. Leave one of the two out."
            )
    return membership


def _one_group_each(task_names: Sequence[str], named: list[list[str]]) -> Tensor:
    """Whether each task is in each group `[T, G]`."""
    everything = [name for group in named for name in group]
    if sorted(everything) != sorted(task_names) or not all(named):
        odd = {name for name in {*everything, *task_names} if everything.count(name) != 1 or name not in task_names}
        raise InputError(
            f"groups is {named}; expected every task of the data in one group, nothing else, and no empty group. Look "
            f"at {', '.join(sorted(odd)) or 'the empty group'}."
        )
    return torch.tensor([[name in group for group in named] for name in task_names])
