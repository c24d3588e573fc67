"""Implicit Q-learning (Kostrikov et al., 2022) for many tasks."""

from typing import Any, Literal

import torch

from mtorl import checks
from mtorl.agents.actor_critic import ActorCritic
from mtorl.agents.base import TaskLosses
from mtorl.agents.heads import GaussianHead, masked_mean
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.spec import DataSpec

LARGEST_WEIGHT = 100.0
"""Of an action in the policy's loss, as published."""


class IQL(ActorCritic):
    """Learns what good actions of the data are worth, and imitates actions the more, the better they are.

    No action outside the data is ever valued: the value of an observation is an upper expectile of the action values.

    Source: Kostrikov et al., Offline Reinforcement Learning with Implicit Q-Learning, 2022, equations 5 to 7.

    Args:
        spec: What is known of the data.
        expectile: Of the action values, in (0, 1); 0.5 is their mean.
        advantage_weight: The paper's beta: how much better actions are preferred.
        distribution: Of the policy's actions: gaussian or deterministic (then the squared error is weighted).
        options: Of `ActorCritic`.
    """

    def __init__(
        self,
        spec: DataSpec,
        expectile: float = 0.7,
        advantage_weight: float = 3.0,
        distribution: Literal["deterministic", "gaussian"] = "gaussian",
        **options: Any,
    ) -> None:
        super().__init__(spec, distribution, **options)
        checks.within("(0, 1)", expectile=expectile)
        checks.within("[0, inf)", advantage_weight=advantage_weight)
        self.expectile, self.advantage_weight = expectile, advantage_weight
        self.value = self._new_critic(inputs=spec.observation_dim)
        self.phases = (
            self.phase("value", self._value_losses, [self.value]),
            self.phase("critic", self._critic_losses, [self.critics], after_step=self.follow),
            self.phase("actor", self._actor_losses, [self.encoder, self.backbone, self.head]),
        )

    @torch.no_grad()
    def _worth(self, batch: TaskBatch) -> torch.Tensor:
        """The smaller action value of the recorded actions, by the targets."""
        return self.values_of(self.target_critics, self.observed(batch), batch.actions, batch.task_ids).amin(0)

    def _value_losses(self, batch: TaskBatch) -> TaskLosses:
        ahead = self._worth(batch) - self.value(self.observed(batch), self.code(batch.task_ids), batch.task_ids)
        return TaskLosses(masked_mean(expectile_loss(ahead, self.expectile), batch.valid))

    def _critic_losses(self, batch: TaskBatch) -> TaskLosses:
        with torch.no_grad():
            code = self.code(batch.task_ids)
            following = self.value(self.observed(batch, following=True), code, batch.task_ids)
        return TaskLosses(self.critic_errors(batch, self.target(batch, following)))

    def _actor_losses(self, batch: TaskBatch) -> TaskLosses:
        observed, ids = self.observed(batch), batch.task_ids
        with torch.no_grad():
            advantage = self._worth(batch) - self.value(observed, self.code(ids), ids)
            weight = torch.exp(self.advantage_weight * advantage).clamp(max=LARGEST_WEIGHT)
        features = self.backbone(observed, self.encoder(ids))
        if isinstance(self.head, GaussianHead):
            errors = -self.head.log_likelihood(features, batch.actions, ids)
        else:
            errors = self.head.action_mean((self.head.predictions(features, ids) - batch.actions).square(), ids)
        more = self.head.additions(features, batch.actions, batch.valid, ids)
        return TaskLosses(masked_mean(weight * errors, batch.valid) + more)


def expectile_loss(ahead: torch.Tensor, expectile: float) -> torch.Tensor:
    """Squared differences; those where the target is ahead weigh `expectile`, the others what is left to one."""
    return torch.where(ahead > 0, expectile, 1 - expectile) * ahead.square()
