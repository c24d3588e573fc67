"""Multi-task behavior cloning: an MLP from observation and task to action."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl import InputError
from mtorl.agents.backbones import MLP, TaskGains
from mtorl.agents.base import Agent, Phase, TaskLink, TaskLosses
from mtorl.agents.heads import OutputHeads, RegressionHead
from mtorl.agents.parameters import ParameterSpace
from mtorl.agents.task_encoders import TaskEncoder, TaskIdentity
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.envs.base import RolloutContext


class BehaviorCloning(Agent):
    """Regression of the recorded actions (Pomerleau, 1988) with a shared MLP.

    Args:
        spec: What is known of the data.
        hidden: Sizes of the hidden layers.
        task_identity: How the network is told its task: none, onehot or embed (a learned vector).
        output_heads: One last layer for all tasks (shared), one each (per_task), or one each without tanh (linear, for
            balancers that need it).
        task_gain: A learned factor of each task on every hidden unit.
        per_task_normalisation: Normalise observations with each task's own statistics.
        std_floor: Smallest standard deviation used for normalising.
        clip: Normalised observations are clipped to plus or minus this.
    """

    def __init__(
        self,
        spec: DataSpec,
        hidden: Sequence[int] = (400, 400, 400),
        task_identity: TaskIdentity = "onehot",
        output_heads: OutputHeads = "shared",
        task_gain: bool = False,
        per_task_normalisation: bool = False,
        std_floor: float = 0.01,
        clip: float = 5.0,
    ) -> None:
        super().__init__(spec, per_task_normalisation, std_floor, clip)
        if not hidden or min(hidden) < 1:
            raise InputError(f"hidden is {list(hidden)}; expected one or more positive layer sizes.")
        tasks = len(spec.task_names)
        self.window = 1
        self.encoder = TaskEncoder(task_identity, tasks)
        self.backbone = MLP(spec.observation_dim + self.encoder.size, hidden)
        self.gains = TaskGains(tasks, hidden if task_gain else ())
        self.head = RegressionHead(hidden[-1], spec.action_dim, tasks, output_heads)
        private = [self.encoder, self.gains, *([self.head] if self.head.per_task else [])]
        space = ParameterSpace(self, private=private, maskable=[self.backbone])
        self.phases = (Phase("policy", self._losses, space, self),)

    def _features(self, observations: Tensor, task_ids: Tensor) -> Tensor:
        code = self.encoder(task_ids).view(len(task_ids), *[1] * (observations.ndim - 2), -1)
        code = code.expand(*observations.shape[:-1], -1)
        return self.backbone(torch.cat([self.normalise(observations, task_ids), code], -1), self.gains(task_ids))

    def _losses(self, batch: TaskBatch) -> TaskLosses:
        features = self._features(batch.observations, batch.task_ids)
        return self.head.task_losses(features, batch)

    def task_links(self) -> list[TaskLink]:
        """See `Agent.task_links`."""
        links = [
            TaskLink("gain", f"backbone.layers.{number}.weight", value.detach().square())
            for number, value in enumerate(self.gains.values)
        ]
        heads = self.head.strengths()
        if heads is not None:
            links.append(TaskLink("head", f"backbone.layers.{len(self.backbone.layers) - 1}.weight", heads))
        return links

    @torch.no_grad()
    def reset(self, context: RolloutContext) -> None:
        """See `Agent.reset`; what stays the same within an episode is looked up once."""
        super().reset(context)
        self._code, self._gains = self.encoder(self._tasks), self.gains(self._tasks)
        self._mean, self._std = self.observation_mean[self._tasks], self.observation_std[self._tasks]

    @torch.no_grad()
    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Agent.act`."""
        seen = ((self._to_tensor(observations) - self._mean) / self._std).clamp(-self.clip, self.clip)
        features = self.backbone(torch.cat([seen, self._code], -1), self._gains)
        return self.head.act(features, self._tasks).to(torch.float32).cpu().numpy()
