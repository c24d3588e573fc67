"""TD3+BC (Fujimoto and Gu, 2021) for many tasks."""

from dataclasses import replace
from typing import Any

import torch

from mtorl import checks
from mtorl.agents.actor_critic import ActorCritic
from mtorl.agents.base import TaskLosses
from mtorl.agents.heads import Head, masked_mean
from mtorl.agents.parameters import held
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.spec import DataSpec


class TD3BC(ActorCritic):
    """A policy that climbs its critic, held back by the recorded actions.

    Deviation 1: the critic's scale is measured for every task by itself.

    Source: Fujimoto and Gu, A Minimalist Approach to Offline Reinforcement Learning, 2021, equations 3 and 5.

    Args:
        spec: What is known of the data.
        critic_weight: The paper's alpha: how much the critic counts, against imitation.
        target_noise: Standard deviation of the noise on the next action.
        noise_clip: Its largest size.
        policy_delay: The policy moves every that many steps.
        options: Of `ActorCritic`.
    """

    def __init__(
        self,
        spec: DataSpec,
        critic_weight: float = 2.5,
        target_noise: float = 0.2,
        noise_clip: float = 0.5,
        policy_delay: int = 2,
        **options: Any,
    ) -> None:
        super().__init__(spec, "deterministic", **options)
        checks.within("[0, inf)", critic_weight=critic_weight, target_noise=target_noise)
        checks.within("[0, inf]", noise_clip=noise_clip)
        checks.at_least(1, policy_delay=policy_delay)
        self.critic_weight, self.target_noise, self.noise_clip = critic_weight, target_noise, noise_clip
        self.target_backbone, self.target_head = self.target_of(self.backbone), self.target_of(self.head)
        parts = [self.encoder, self.backbone, self.head]
        actor = self.phase("actor", self._actor_losses, parts, policy_delay, self.follow)
        critic = self.phase("critic", self._critic_losses, [self.critics])
        self.phases = (critic, replace(actor, splits=False))  # the size of values is a mean of its own

    @torch.no_grad()
    def _next_actions(self, batch: TaskBatch) -> torch.Tensor:
        """What the target policy does next, with noise."""
        features = self.target_backbone(self.observed(batch, following=True), self.encoder(batch.task_ids))
        assert isinstance(self.target_head, Head)
        actions = self.target_head.means(features, batch.task_ids)
        noise = (self.target_noise * torch.randn_like(actions)).clamp(-self.noise_clip, self.noise_clip)
        return (actions + self.head.owned_only(noise, batch.task_ids)).clamp(-1, 1)

    def _critic_losses(self, batch: TaskBatch) -> TaskLosses:
        with torch.no_grad():
            observed, actions = self.observed(batch, following=True), self._next_actions(batch)
            following = self.values_of(self.target_critics, observed, actions, batch.task_ids).amin(0)
        return TaskLosses(self.critic_errors(batch, self.target(batch, following)))

    def _actor_losses(self, batch: TaskBatch) -> TaskLosses:
        observed, ids = self.observed(batch), batch.task_ids
        features = self.actor_features(observed, ids)
        actions = self.head.predictions(features, ids)
        value = held(self.critics[0])(torch.cat([observed, actions], -1), self.code(ids), ids)
        size = masked_mean(value.detach().abs(), batch.valid).clamp(min=1e-6)  # Deviation 1
        imitation = masked_mean(self.head.action_mean((actions - batch.actions).square(), ids), batch.valid)
        imitation = imitation + self.head.additions(features, batch.actions, batch.valid, ids)
        return TaskLosses(imitation - self.critic_weight / size * masked_mean(value, batch.valid))
