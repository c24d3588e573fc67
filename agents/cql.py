"""Conservative Q-learning (Kumar et al., 2020) for many tasks."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mtorl import checks
from mtorl.agents.actor_critic import ActorCritic
from mtorl.agents.base import TaskLosses
from mtorl.agents.heads import GaussianHead, masked_mean
from mtorl.agents.parameters import held
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.schema import State


class CQL(ActorCritic):
    """A policy that climbs critics which value actions outside the data low.

    The policy is a squashed normal distribution. By how much actions outside the data are valued less is a matter of
    the temperature, whatever the rewards are, and in each step anew: with rewards of at most 1, as here, and the
    published weight of 5 and temperature of 1, values spiral down until nothing else counts.

    Deviations:
    1. The temperature divides values alone, not the densities with which actions were drawn.
    2. The weights of the conservative term and of the policy's entropy are fixed.
    3. Next values have no entropy in them.
    4. The normal distribution's deviation does not depend on what is observed.

    Source: Kumar et al., Conservative Q-Learning for Offline Reinforcement Learning, 2020, equation 4 (CQL(H)).

    Args:
        spec: What is known of the data.
        conservative_weight: The paper's alpha.
        temperature: Of the soft maximum over actions.
        samples: Actions drawn from each of three sources: uniform, the policy, and the policy one step later.
        entropy_weight: Of the policy's entropy.
        imitation_steps: First moves of the policy, in which it learns to do what was recorded (as in the authors' code;
            here with the squared error): critics know little yet of the actions that it would take otherwise.
        options: Of `ActorCritic`.
    """

    head: GaussianHead
    moves: Tensor

    def __init__(
        self,
        spec: DataSpec,
        conservative_weight: float = 0.2,
        temperature: float = 0.02,
        samples: int = 10,
        entropy_weight: float = 0.01,
        imitation_steps: int = 1000,
        **options: Any,
    ) -> None:
        super().__init__(spec, "gaussian", **options)
        checks.within("[0, inf)", conservative_weight=conservative_weight, entropy_weight=entropy_weight)
        checks.within("(0, inf)", temperature=temperature)
        checks.at_least(0, imitation_steps=imitation_steps)
        checks.at_least(1, samples=samples)
        self.conservative_weight, self.entropy_weight = conservative_weight, entropy_weight  # Deviation 2
        self.samples = samples
        self.imitation_steps, self.temperature = imitation_steps, temperature
        self.register_buffer("moves", torch.zeros((), dtype=torch.int64))
        self._note_moves(0)
        self.phases = (
            self.phase("critic", self._critic_losses, [self.critics]),
            self.phase("actor", self._actor_losses, [self.encoder, self.backbone, self.head], after_step=self._follow),
        )

    def _follow(self) -> None:
        self.moves += 1
        self._note_moves(self._made + 1)
        self.follow()

    def _note_moves(self, count: int) -> None:
        """Keeps apart from the buffer what losses ask for: it may be on a GPU, and what is compiled cannot read it."""
        self._made, self._imitates = count, count < self.imitation_steps

    def _load_from_state_dict(self, state_dict: State, prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self._note_moves(int(self.moves))

    def _draw(self, observed: Tensor, task_ids: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Actions of the policy `[T, count * B, L, A]`, differentiable in it, and their log-densities."""
        features = self.backbone(observed, self.encoder(task_ids))
        means = self.head.linear_map(features, task_ids).repeat(1, count, 1, 1)
        std, noise = self.head.deviations(task_ids), torch.randn_like(means)  # Deviation 4
        before = means + std * noise
        stretch = 2 * (math.log(2) - before - functional.softplus(-2 * before))  # log of the derivative of tanh
        each = -0.5 * noise.square() - std.log() - 0.5 * math.log(2 * math.pi) - stretch
        return self.head.owned_only(torch.tanh(before), task_ids), self.head.owned_only(each, task_ids).sum(-1)

    def _others(self, observed: Tensor, ahead: Tensor, task_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Actions `[T, 3 * samples * B, L, A]` that are to be valued low, and their log-densities."""
        drawn = [self._draw(seen, task_ids, self.samples) for seen in (observed, ahead)]
        uniform = self.head.owned_only(2 * torch.rand_like(drawn[0][0]) - 1, task_ids)
        volume = torch.as_tensor(self.head.action_dims(task_ids, uniform.shape[-1]) * math.log(2))
        densities = [-volume.to(uniform).view(-1, 1, 1).expand_as(drawn[0][1]), *[it[1] for it in drawn]]
        return torch.cat([uniform, *[it[0] for it in drawn]], 1), torch.cat(densities, 1)

    def _critic_losses(self, batch: TaskBatch) -> TaskLosses:
        observed, ids, windows = self.observed(batch), batch.task_ids, batch.valid.shape[1]
        with torch.no_grad():
            ahead = self.observed(batch, following=True)
            actions, _ = self._draw(ahead, ids, 1)
            following = self.values_of(self.target_critics, ahead, actions, ids).amin(0)  # Deviation 3
            others, densities = self._others(observed, ahead, ids)
        count = 3 * self.samples
        values = self.values_of(self.critics, observed.repeat(1, count, 1, 1), others, ids)
        values = values.unflatten(2, (count, windows)).movedim(2, 0)  # q t (k b) l -> k q t b l
        recorded = self.values_of(self.critics, observed, batch.actions, ids)
        drawn = densities.unflatten(1, (count, windows)).movedim(1, 0)[:, None]
        gaps = conservative_gap(values, drawn, recorded, self.temperature)
        errors = (recorded - self.target(batch, following)).square()
        return TaskLosses(masked_mean((errors + self.conservative_weight * gaps).sum(0), batch.valid))

    def _actor_losses(self, batch: TaskBatch) -> TaskLosses:
        observed, ids = self.observed(batch), batch.task_ids
        if self._imitates:
            errors = self.head.action_mean((self.mean_actions(observed, ids) - batch.actions).square(), ids)
            return TaskLosses(masked_mean(errors, batch.valid))
        actions, density = self._draw(observed, ids, 1)
        inputs, code = torch.cat([observed, actions], -1), self.code(ids)
        value = torch.stack([held(critic)(inputs, code, ids) for critic in self.critics]).amin(0)
        return TaskLosses(masked_mean(self.entropy_weight * density - value, batch.valid))


def conservative_gap(values: Tensor, log_densities: Tensor, recorded: Tensor, temperature: float = 1.0) -> Tensor:
    """How much more all actions are worth, by their soft maximum, than the recorded one.

    Args:
        values: `[K, ...]`, of drawn actions.
        log_densities: `[K, ...]`, with which they were drawn.
        recorded: `[...]`, values of recorded actions.
        temperature: Of the soft maximum.

    Returns:
        `[...]`: the temperature times the logarithm of an estimate of the integral of exp(value / temperature) over all
        actions, less the recorded value.
    """
    soft = torch.logsumexp(values / temperature - log_densities, 0)  # Deviation 1
    return temperature * (soft - math.log(len(values))) - recorded
