"""What offline learners with critics share: networks, targets, returns of a common scale."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mtorl import InputError, checks
from mtorl.agents.base import Phase, TaskLosses
from mtorl.agents.feed_forward import FeedForwardPolicy
from mtorl.agents.heads import Head, HeadMaker, OutputHeads, RegressionHead, build_head, masked_mean
from mtorl.agents.networks import Network, build_network
from mtorl.agents.networks.base import Backbone
from mtorl.agents.parameters import ParameterSpace
from mtorl.agents.task_parts import TaskEncoder, TaskGains, TaskIdentity
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore

CriticHeads = Literal["shared", "per_task"]


class Critic(nn.Module):
    """A number for what is observed, or for an observation and an action.

    Args:
        network: What it is made of; linear layers by default.
        inputs: Numbers that it reads.
        code: Z, size of the task's vector.
        tasks: T.
        heads: One last layer for all tasks (shared), or one each (per_task).
    """

    def __init__(self, network: Network | None, inputs: int, code: int, tasks: int, heads: CriticHeads) -> None:
        super().__init__()
        self.backbone = build_network(network, inputs, code)
        self.head = RegressionHead(self.backbone.size, 1, tasks, "shared" if heads == "shared" else "linear")

    def forward(self, inputs: Tensor, code: Tensor, task_ids: Tensor) -> Tensor:
        """`[T, B, L]` from `[T, B, L, inputs]`, codes `[T, Z]` and tasks `[T]`."""
        return self.head.linear_map(self.backbone(inputs, code), task_ids)[..., 0]


class ActorCritic(FeedForwardPolicy):
    """A policy and its critics. Acting, it is the policy alone.

    Rewards are divided by the size of their task's largest one in the data, so that one scale fits all. An episode that
    was cut off, by the time limit or by who recorded it, goes on as far as critics know: only an environment's own end
    counts. Targets read the tasks' newest vectors.

    Args:
        spec: What is known of the data.
        distribution: Of the policy's actions: deterministic or gaussian.
        actor: The policy's network; linear layers of 256 and 256 by default.
        critic: The critics' networks, likewise.
        task_identity: How the networks are told their task: none, onehot or embed (a learned vector).
        output_heads: The policy's last layer: shared, per_task, or one for each group of `--grouping` (per_group).
        head: Another head of the policy in place of it, for deterministic actions, see `mtorl list heads`.
        critic_heads: The critics' last layers: shared or per_task.
        discount: Of the next step's value.
        target_rate: Share by which the target networks follow in each step.
        per_task_normalisation: Normalise observations with each task's own statistics.
        std_floor: Smallest standard deviation used for normalising.
        clip: Normalised observations are clipped to plus or minus this.
    """

    next_observations = True
    reward_scale: Tensor

    @abstractmethod
    def __init__(
        self,
        spec: DataSpec,
        distribution: Literal["deterministic", "gaussian"],
        actor: Network | None = None,
        critic: Network | None = None,
        task_identity: TaskIdentity = "onehot",
        output_heads: OutputHeads = "shared",
        head: HeadMaker | None = None,
        critic_heads: CriticHeads = "shared",
        discount: float = 0.99,
        target_rate: float = 0.005,
        per_task_normalisation: bool = False,
        std_floor: float = 0.01,
        clip: float = 5.0,
    ) -> None:
        super().__init__(spec, per_task_normalisation, std_floor, clip)
        checks.within("[0, 1)", discount=discount)
        checks.within("(0, 1]", target_rate=target_rate)
        if output_heads == "linear":
            raise InputError(
                "output_heads is 'linear'; expected shared, per_task or per_group: losses here are no plain errors."
            )
        self.discount, self.target_rate = discount, target_rate
        tasks, inputs = len(spec.task_names), spec.observation_dim + spec.action_dim
        encoder = TaskEncoder(task_identity, tasks)
        backbone = build_network(actor, spec.observation_dim, encoder.size)
        last = build_head(head, backbone.size, spec, output_heads, distribution)
        if distribution == "deterministic":
            _check_head(last)
        self.set_policy(encoder, backbone, TaskGains(tasks, ()), last)
        self._new_critic = partial(Critic, critic, code=encoder.size, tasks=tasks, heads=critic_heads)
        self.critics = nn.ModuleList([self._new_critic(inputs=inputs) for _ in range(2)])
        self._targets: list[tuple[nn.Module, nn.Module]] = []
        self.target_critics = self.target_of(self.critics)
        self.register_buffer("reward_scale", torch.ones(tasks))

    def remember(self, stores: Sequence[EpisodeStore]) -> None:
        """Keeps the size of each task's largest reward."""
        for number, name in enumerate(self.spec.task_names):
            largest = [
                np.abs(store.rewards[store.starts[it] : store.starts[it + 1]]).max()
                for store in stores
                if name in store.task_names
                for it in np.flatnonzero(store.index["task"] == store.task_names.index(name))
            ]
            self.reward_scale[number] = float(max(largest)) or 1.0  # of any size, but for rewards that are all zero

    @property
    def acting_phases(self) -> tuple[str, ...]:
        """That of the policy."""
        return ("actor",)

    @property
    def shadows(self) -> dict[str, str]:
        """See `Agent.shadows`: a target network is masked as what it follows."""
        names = {id(value): name for name, value in self.named_parameters()}
        pairs = [
            (old, new)
            for target, source in self._targets
            for old, new in zip(target.parameters(), source.parameters(), strict=True)
        ]
        return {names[id(old)]: names[id(new)] for old, new in pairs}

    @property
    def needs_task(self) -> bool:
        """Whether the policy depends on the task's identity; critics do not act."""
        return self.encoder.kind != "none" or self.head.per_task or self._normalised_per_task

    def phase(
        self,
        name: str,
        losses: Callable[[TaskBatch], TaskLosses],
        parts: Sequence[nn.Module],
        every: int = 1,
        after_step: Callable[[], None] = lambda: None,
    ) -> Phase:
        """A phase that moves these parts of the agent."""
        heads = [own for part in self.modules() if isinstance(part, Head) for own in part.private()]
        backbones = [it for part in parts for it in part.modules() if isinstance(it, Backbone)]
        maskable = [layer for it in backbones for layer in it.maskable()]
        mixed = [layer for it in backbones for layer in it.mixed()]
        space = ParameterSpace(self, [self.encoder, *heads], maskable, parts, mixed)
        moved = partial(self._moved_backbones, backbones, after_step)
        return Phase(name, losses, space, nn.ModuleList(parts), every, after_step=moved)

    def _moved_backbones(self, backbones: Sequence[Backbone], after_step: Callable[[], None]) -> None:
        for backbone in backbones:
            backbone.after_step()
        after_step()

    def observed(self, batch: TaskBatch, following: bool = False) -> Tensor:
        """Normalised observations `[T, B, L, O]` of a batch, or those that follow."""
        if following:
            assert batch.next_observations is not None
            return self.normalise(batch.next_observations, batch.task_ids)
        return self.normalise(batch.observations, batch.task_ids)

    def values_of(self, critics: nn.Module, observed: Tensor, actions: Tensor, task_ids: Tensor) -> Tensor:
        """Action values of each critic `[critics, T, B, L]`."""
        inputs, code = torch.cat([observed, actions], -1), self.code(task_ids)
        assert isinstance(critics, nn.ModuleList)
        return torch.stack([critic(inputs, code, task_ids) for critic in critics])

    def code(self, task_ids: Tensor) -> Tensor:
        """The tasks' vectors, as critics read them: the policy alone teaches them."""
        return self.encoder(task_ids).detach()

    def actor_features(self, observed: Tensor, task_ids: Tensor) -> Tensor:
        """What the policy's head reads `[T, B, L, F]`."""
        return self.backbone(observed, self.encoder(task_ids), ())

    def mean_actions(self, observed: Tensor, task_ids: Tensor) -> Tensor:
        """The policy's mean actions `[T, B, L, A]`."""
        return self.head.means(self.actor_features(observed, task_ids), task_ids)

    def target(self, batch: TaskBatch, following: Tensor) -> Tensor:
        """What action values are to be: the scaled reward and the discounted value `[T, B, L]` of what follows."""
        assert batch.terminated is not None
        rewards = batch.rewards / self.reward_scale[batch.task_ids].view(-1, 1, 1)
        return rewards + self.discount * following * (~batch.terminated)

    def critic_errors(self, batch: TaskBatch, targets: Tensor) -> Tensor:
        """Squared errors of all critics, a mean for each task `[T]`."""
        values = self.values_of(self.critics, self.observed(batch), batch.actions, batch.task_ids)
        return masked_mean((values - targets).square().sum(0), batch.valid)

    def target_of(self, source: nn.Module) -> nn.Module:
        """A copy of a part of the agent that no gradient moves, and that follows it."""
        target = copy.deepcopy(source).requires_grad_(False)
        self._targets.append((target, source))
        return target

    @torch.no_grad()
    def follow(self) -> None:
        """Moves all target networks towards what they follow."""
        for target, source in self._targets:
            for old, new in zip(target.parameters(), source.parameters(), strict=True):
                old.lerp_(new, self.target_rate)
            for kept, present in zip(target.buffers(), source.buffers(), strict=True):
                kept.copy_(present)


def _check_head(head: Head) -> None:
    """Refuses heads whose actions are not all that there is to their loss: the losses here are made of actions."""
    if not head.plain:
        raise InputError(
            "head is linear, or has a likelihood of its own (GaussianHead, likelihood=learned); expected one whose "
            "actions are within their limits and whose loss is their error. Use the agent's distribution, if it has "
            "one, or another head."
        )
