"""Heads that are distributions, each with a prior made of the others (Shen et al., 2021). Written from the paper."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtorl import checks
from mtorl.agents.heads.base import Relations, in_single, masked_mean
from mtorl.agents.heads.regression import RegressionHead

FLOOR = 1e-6
"""Added to variances of weights."""
TINY = 1e-12
"""Added to variances of outputs: the slope of a square root is finite there."""


class VariationalHeads(RegressionHead):
    """A normal distribution over the weights of each task's head, whose prior is mixed from the other tasks' heads.

    How much a task takes from every other is learned: coefficients are drawn with the Gumbel-softmax, and the prior is
    that of the weighted sum of the others' heads, through which they do not learn. A task with few data leans on the
    heads of tasks like it. The loss is the negative log-likelihood of normal actions around the prediction, and the
    divergence of the head from its prior, over the number of the task's recorded steps; both per action dimension.
    Acting takes the means.

    Deviations:
    1. Features are no distribution: their prior matches inputs by their label, and regression has none.
    2. Actions are normal around `tanh` of a linear map with one drawn weight matrix for each position, through what
       that makes of outputs (local reparameterisation); the paper classifies, with ten draws.
    3. The divergence counts in full from `warmup` on, and rises linearly to that. The released code raises a factor of
       1e-6 by steps, and uses a standard normal prior in the first few.
    4. The temperature falls geometrically over all of training.
    5. Priors are made of the other heads as they are, not as they were when their task had its last turn.
    6. Biases are no distributions, and nothing pulls them together.

    Source: Shen et al., Variational Multi-Task Learning with Gumbel-Softmax Priors, 2021.

    Args:
        features: F.
        actions: A.
        tasks: T.
        likelihood: The variance of actions is given (fixed), or learned for each task from there (learned).
        variance: Of actions around the prediction.
        deviation: Standard deviation of every weight at first.
        warmup: Share of training over which the divergence comes to count.
        first_temperature: Of the coefficients as training begins.
        last_temperature: As it ends.
    """

    log_variance: Tensor
    samples: Tensor
    progress: Tensor

    def __init__(
        self,
        features: int,
        actions: int,
        tasks: int,
        likelihood: Literal["fixed", "learned"] = "fixed",
        variance: float = 0.1,
        deviation: float = 0.05,
        warmup: float = 0.1,
        first_temperature: float = 1.0,
        last_temperature: float = 0.5,
    ) -> None:
        super().__init__(features, actions, tasks, "per_task")
        checks.one_of("likelihood", likelihood, Literal["fixed", "learned"])
        checks.within("(0, inf)", variance=variance, deviation=deviation)
        checks.within("[0, 1]", warmup=warmup)
        checks.within("[0.05, inf)", first_temperature=first_temperature, last_temperature=last_temperature)
        self.warmup, self.temperatures = warmup, (first_temperature, last_temperature)
        self.rho = nn.Parameter(torch.full_like(self.weight, math.log(math.expm1(deviation))))
        self.logits = nn.Parameter(torch.zeros(tasks, tasks))
        self._learned = likelihood == "learned"
        spread = torch.full((tasks,), math.log(variance))
        if self._learned:
            self.log_variance = nn.Parameter(spread)
        else:
            self.register_buffer("log_variance", spread)
        self.register_buffer("samples", torch.ones(tasks), persistent=False)
        self.register_buffer("progress", torch.zeros(()))

    @property
    def plain(self) -> bool:
        """See `Head.plain`: with a given variance."""
        return not self._learned

    def task_rows(self) -> list[nn.Parameter]:
        """All parameters."""
        return list(self.parameters())

    def expect(self, samples: Tensor) -> None:
        """See `Head.expect`: divergences are divided by it."""
        self.samples.copy_(samples.clamp(min=1))

    def progressed(self, share: float) -> None:
        """See `Head.progressed`."""
        self.progress.fill_(share)

    @property
    def temperature(self) -> Tensor:
        """Of the coefficients, now."""
        first, last = self.temperatures
        return first * (last / first) ** self.progress  # Deviation 4

    def coefficients(self, task_ids: Tensor, noise: bool = False) -> Tensor:
        """How much tasks `[T]` take from every task, `[T, tasks]`; rows sum to one, and nobody takes from itself.

        Args:
            task_ids: `[T]`.
            noise: Draw them; otherwise those without Gumbel noise.

        Returns:
            Zero for a task that is alone.
        """
        logits = self.logits[task_ids]
        if len(self.logits) == 1:
            return 0 * logits
        logits = logits + gumbel_like(logits) if noise else logits
        themselves = torch.arange(len(self.logits), device=logits.device) == task_ids[:, None]
        return (logits / self.temperature).masked_fill(themselves, -torch.inf).softmax(-1)

    def prior(self, task_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances `[T, F, A]` of the priors of tasks `[T]`: standard normal for a single task."""
        shares, alone = self.coefficients(task_ids, noise=self.training), len(self.logits) == 1
        means, variances = self.weight.detach(), functional.softplus(self.rho.detach()).square()  # Deviation 5
        if self.owned is not None:
            return self._prior_of_owners(shares, means, variances)
        spread = mixed(shares.square(), variances)
        return mixed(shares, means), spread + 1 if alone else spread

    def _prior_of_owners(self, shares: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
        """The same where tasks have padding: of every action dimension among the tasks that have it."""
        assert self.owned is not None
        shares = shares[..., None] * self.owned  # t s a
        shares = shares / shares.sum(1, keepdim=True).clamp(min=TINY)
        nobody = 1 - shares.sum(1)[:, None].round()
        spread = torch.einsum("tsa,sfa->tfa", shares.square(), variances)
        return torch.einsum("tsa,sfa->tfa", shares, means), spread + nobody

    def divergences(self, task_ids: Tensor) -> Tensor:
        """Of the heads of tasks `[T]` from their priors, `[T]`, in nats."""
        means, variances = self.prior(task_ids)
        each = divergence(self.weight[task_ids], self._variances(task_ids), means, variances)
        return self.owned_only(each, task_ids).sum((1, 2))

    def _variances(self, task_ids: Tensor) -> Tensor:
        return functional.softplus(self.rho[task_ids]).square()

    def _output_variances(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """Of the linear map, `[T, B, L, A]`."""
        flat = torch.bmm(features.flatten(1, 2).square(), self._variances(task_ids))
        return flat.unflatten(1, features.shape[1:3])

    def predictions(self, features: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.predictions`: with drawn weights while training."""
        values = self.linear_map(features, task_ids)  # Deviation 6: and plain biases
        if self.training:  # Deviation 2
            values = values + (self._output_variances(features, task_ids) + TINY).sqrt() * torch.randn_like(values)
        return self.owned_only(torch.tanh(values), task_ids)

    def losses(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.losses`: per action dimension, without constants."""
        # Deviation 1: of features as they are
        errors = self._squared_error(self.predictions(features, task_ids), targets, valid, task_ids)
        log_variance = self.log_variance[task_ids]
        likelihood = errors / (2 * log_variance.exp())
        if self._learned:
            likelihood = likelihood + 0.5 * valid.flatten(1).any(1) * log_variance
        return likelihood + self._pull(valid, task_ids) / self.action_dims(task_ids, targets.shape[-1])

    def additions(self, features: Tensor, targets: Tensor, valid: Tensor, task_ids: Tensor) -> Tensor:
        """See `Head.additions`: the divergence, in the unit of the squared error."""
        scale = 2 * self.log_variance[task_ids].detach().exp()
        return scale * self._pull(valid, task_ids) / self.action_dims(task_ids, targets.shape[-1])

    def _pull(self, valid: Tensor, task_ids: Tensor) -> Tensor:
        """What the divergences count `[T]`; 0 for a task without valid positions.

        The first move counts a little of it, too: of what it does not count, nothing is learned.
        """
        whole = self.progress.new_ones(())
        share = torch.minimum(whole, (self.progress + 1e-3) / self.warmup) if self.warmup else whole  # Deviation 3
        return valid.flatten(1).any(1) * share * self.divergences(task_ids) / self.samples[task_ids]

    @property
    def related(self) -> bool:
        """See `Head.related`."""
        return True

    @torch.no_grad()
    def relations(self, features: Tensor, valid: Tensor, task_ids: Tensor) -> Relations:
        """See `Head.relations`: coefficients without noise, and deviations of actions to first order."""
        slopes = 1 - self.means(features, task_ids).square()
        deviations = slopes * self._output_variances(features, task_ids).sqrt()
        everybody = torch.arange(len(self.logits), device=task_ids.device)
        return Relations(self.coefficients(everybody), masked_mean(self.action_mean(deviations, task_ids), valid))


def mixed(shares: Tensor, values: Tensor) -> Tensor:
    """Sums `[T, F, A]` of values `[tasks, F, A]` with shares `[T, tasks]`."""
    with in_single(values):
        return (shares @ values.flatten(1)).unflatten(1, values.shape[1:])


def divergence(means: Tensor, variances: Tensor, prior_means: Tensor, prior_variances: Tensor) -> Tensor:
    """Of normal distributions from others (Kullback and Leibler), by elements, in nats."""
    own, prior = variances + FLOOR, prior_variances + FLOOR
    return 0.5 * (prior.log() - own.log() - 1 + (own + (means - prior_means).square()) / prior)


def gumbel_like(values: Tensor) -> Tensor:
    """Gumbel noise from torch's global state, which training sets for every step."""
    uniform = torch.rand_like(values).clamp(min=torch.finfo(values.dtype).tiny, max=1 - torch.finfo(values.dtype).eps)
    return -(-uniform.log()).log()
