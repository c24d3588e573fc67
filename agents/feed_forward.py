"""Policies that look at the newest observation only: a backbone and a head."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl.agents.base import Agent, Phase, TaskLosses
from mtorl.agents.heads import Head, Relations
from mtorl.agents.networks.base import Backbone
from mtorl.agents.parameters import ParameterSpace
from mtorl.agents.task_parts import TaskEncoder, TaskGains
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.envs.base import RolloutContext


@dataclass(frozen=True)
class FeedForwardRollout:
    """A block of N episodes that is being played.

    Attributes:
        tasks: int64 `[N]`.
        features: The backbone for these tasks: from normalised observations `[N, O]` to `[N, F]`.
        mean: `[N, O]`, of the observations.
        std: `[N, O]`.
    """

    tasks: Tensor
    features: Callable[[Tensor], Tensor]
    mean: Tensor
    std: Tensor


class FeedForwardPolicy(Agent):
    """A backbone and a head. A subclass hands them over with `set_policy`, and says what they are trained for."""

    window = 1
    decides_on = ("observations",)
    backbone: Backbone
    head: Head
    rollout: FeedForwardRollout

    @abstractmethod
    def __init__(self, spec: DataSpec, per_task_normalisation: bool, std_floor: float, clip: float) -> None:
        super().__init__(spec, per_task_normalisation, std_floor, clip)

    def set_policy(self, encoder: TaskEncoder, backbone: Backbone, gains: TaskGains, head: Head) -> None:
        """Takes the parts that act."""
        self.encoder, self.backbone, self.gains, self.head = encoder, backbone, gains, head

    def imitation(self) -> Phase:
        """A phase that does what was recorded."""
        private = [self.encoder, self.gains, *self.head.private()]
        space = ParameterSpace(self, private=private, maskable=self.backbone.maskable(), mixed=self.backbone.mixed())
        return Phase("policy", self._losses, space, self, after_step=self._moved)

    def _inputs(self, observations: Tensor, task_ids: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """What the backbone reads."""
        return self.normalise(observations, task_ids), self.encoder(task_ids), self.gains(task_ids)

    def _features(self, observations: Tensor, task_ids: Tensor) -> Tensor:
        return self.backbone(*self._inputs(observations, task_ids))

    def _moved(self) -> None:
        self.backbone.after_step()

    def _losses(self, batch: TaskBatch) -> TaskLosses:
        inputs = self._inputs(batch.observations, batch.task_ids)
        branches = self.backbone.branches(*inputs)
        if branches is None:
            return self.head(self.backbone(*inputs), batch)
        each = torch.stack([self.head(features, batch).values for features in branches.features], -1)
        return TaskLosses((branches.shares * each).sum(-1) + branches.penalty)

    @torch.no_grad()
    def routing(self, batch: TaskBatch) -> list[Tensor]:
        """See `Agent.routing`."""
        seen = self.normalise(batch.observations, batch.task_ids)
        return self.backbone.mean_weights(seen, self.encoder(batch.task_ids))

    @torch.no_grad()
    def relations(self, batch: TaskBatch) -> Relations | None:
        """See `Agent.relations`."""
        if not self.head.related:
            return None
        features = self._features(batch.observations, batch.task_ids)
        return self.head.relations(features, batch.valid, batch.task_ids)

    def begin(self, tasks: Tensor, context: RolloutContext) -> FeedForwardRollout:
        """See `Agent.begin`; what stays the same within an episode is worked out once."""
        features = self.backbone.prepared(self.encoder(tasks), self.gains(tasks))
        return FeedForwardRollout(tasks, features, self.observation_mean[tasks], self.observation_std[tasks])

    def decide(self, tasks: Tensor, *inputs: Tensor) -> Tensor:
        """See `Agent.decide`; as in training, one task with many observations."""
        features = self._features(inputs[0][None], tasks[:1])[0]
        return self.head.act(features, tasks)

    @torch.no_grad()
    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Agent.act`."""
        now = self.rollout
        seen = ((self._to_tensor(observations) - now.mean) / now.std).clamp(-self.clip, self.clip)
        return self.head.act(now.features(seen), now.tasks).to(torch.float32).cpu().numpy()
