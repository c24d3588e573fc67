"""Multi-task behavior cloning: a feed-forward network from observation and task to action."""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl.agents.backbones import Backbone, MLPBackbone, TaskGains
from mtorl.agents.base import Agent, Phase, TaskLink, TaskLosses
from mtorl.agents.heads import Head, OutputHeads, RegressionHead
from mtorl.agents.parameters import ParameterSpace
from mtorl.agents.task_encoders import TaskEncoder, TaskIdentity
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.envs.base import RolloutContext


class Imitation(Agent):
    """A feed-forward policy that is trained to do what was recorded: a backbone and a head."""

    window = 1
    backbone: Backbone
    head: Head

    @abstractmethod
    def __init__(self, spec: DataSpec, per_task_normalisation: bool, std_floor: float, clip: float) -> None:
        super().__init__(spec, per_task_normalisation, std_floor, clip)

    def assemble(self, encoder: TaskEncoder, backbone: Backbone, gains: TaskGains, head: Head) -> None:
        """Puts the parts together; the last thing that a constructor does."""
        self.encoder, self.backbone, self.gains, self.head = encoder, backbone, gains, head
        private = [encoder, gains, *([head] if head.task_rows() else [])]
        space = ParameterSpace(self, private=private, maskable=backbone.maskable())
        self.phases = (Phase("policy", self._losses, space, self),)

    def _features(self, observations: Tensor, task_ids: Tensor) -> Tensor:
        seen = self.normalise(observations, task_ids)
        return self.backbone(seen, self.encoder(task_ids), self.gains(task_ids))

    def _losses(self, batch: TaskBatch) -> TaskLosses:
        return self.head.task_losses(self._features(batch.observations, batch.task_ids), batch)

    @torch.no_grad()
    def reset(self, context: RolloutContext) -> None:
        """See `Agent.reset`; what stays the same within an episode is worked out once."""
        super().reset(context)
        self._play = self.backbone.prepared(self.encoder(self._tasks), self.gains(self._tasks))
        self._mean, self._std = self.observation_mean[self._tasks], self.observation_std[self._tasks]

    @torch.no_grad()
    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Agent.act`."""
        seen = ((self._to_tensor(observations) - self._mean) / self._std).clamp(-self.clip, self.clip)
        return self.head.act(self._play(seen), self._tasks).to(torch.float32).cpu().numpy()


class BehaviorCloning(Imitation):
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

    backbone: MLPBackbone

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
        tasks = len(spec.task_names)
        encoder = TaskEncoder(task_identity, tasks)
        backbone = MLPBackbone(spec.observation_dim, encoder.size, hidden)
        head = RegressionHead(backbone.size, spec.action_dim, tasks, output_heads)
        self.assemble(encoder, backbone, TaskGains(tasks, hidden if task_gain else ()), head)

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
