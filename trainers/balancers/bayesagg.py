"""Bayesian aggregation at the representation.

Deviations from the published method:
1. In offline multi-task learning a window belongs to one task, so tasks never share a datum, over which the method
   aggregates. `outputs` aggregates the action dimensions of a datum; `batch` weighs the data of the whole batch.
2. The posterior is over statistics that forget exponentially, instead of all features of the last epoch; it is renewed
   every `refresh` steps. A constant feature stands for the bias.
3. Steps of one window are not independent: the likelihood is tempered by `temper`.
4. Acting uses the head that was trained by gradient steps, not the posterior's mean.
"""

from typing import Literal

import torch
from torch import Tensor

from mtorl import InputError, checks
from mtorl.agents.base import TaskLosses
from mtorl.schema import State
from mtorl.trainers.balancers.base import Balancer
from mtorl.trainers.update import MultiTaskUpdate

LEAST_VARIANCE = 1e-8


class BayesAgg(Balancer):
    """Weighs the gradient at every feature by how sure the task's head is of it.

    The last layer of each task is linear with a Gaussian posterior; the gradient of its loss at a feature is then a
    random number, whose mean is used and whose variance says how much to trust it. Needs `--agent.output_heads linear`.

    Source: Achituve et al., Bayesian Uncertainty for Gradient Aggregation in Multi-Task Learning, 2024, equations 5
    to 9.

    Args:
        mode: Aggregate over the outputs of each datum, or over all data of the batch.
        power: Weights are the variance to the power of minus this; 0 gives the mean.
        prior: Variance of the weights before any data.
        temper: The likelihood counts a step of data as one over this; about the window's length if steps are alike.
        memory: Share of the statistics that is kept from one step to the next.
        refresh: Training steps between two renewals of the posterior.
        warmup: Training steps with equal weights at first.
    """

    needs = "features, and linear heads of single tasks"
    spreads = False

    def __init__(
        self,
        mode: Literal["outputs", "batch"] = "outputs",
        power: float = 0.3,
        prior: float = 0.005,
        temper: float = 1.0,
        memory: float = 0.99,
        refresh: int = 50,
        warmup: int = 200,
    ) -> None:
        super().__init__()
        checks.one_of("mode", mode, ("outputs", "batch"))
        checks.within("[0, inf)", power=power)
        checks.within("(0, inf)", prior=prior, temper=temper)
        checks.within("[0, 1)", memory=memory)
        checks.at_least(1, refresh=refresh, warmup=warmup)
        self.mode, self.power, self.prior, self.temper = mode, power, prior, temper
        self.memory, self.refresh, self.warmup = memory, refresh, warmup
        self._calls = 0
        self._statistics: dict[str, Tensor] = {}

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """One forward pass, one backward pass from the features."""
        losses = update.losses()
        if losses.features is None or losses.targets is None or losses.valid is None or not losses.linear:
            raise InputError(
                "BayesAgg needs a linear last layer for every task; this agent has another one. Add "
                "--agent.output_heads linear."
            )
        count = len(losses.values)
        features, targets = _rows(losses)
        ids = update.task_ids
        self._learn(features, targets, ids)
        if self._calls <= self.warmup:
            weights = torch.full((count,), 1 / count)
            return update.descend_loss((weights.to(losses.values) * losses.values).sum(), weights)
        mean, covariance = condition(
            self._statistics["mean"][ids], self._statistics["covariance"][ids], features, targets, self.temper
        )
        gradient, variance = gradient_moments(features, targets, mean, covariance)
        cotangent = self.aggregate(gradient[..., :-1], variance[..., :-1], losses.valid.flatten(1), losses.owned)
        cotangent = cotangent.view(losses.features.shape).to(losses.features) / count
        return update.descend_features(losses, cotangent)  # Deviation 4: the heads move by their own gradients

    def _learn(self, features: Tensor, targets: Tensor, ids: Tensor) -> None:
        """Adds the batch to the statistics, and renews the posterior when it is due."""
        size, outputs = features.shape[-1], targets.shape[-1]
        statistics = self._statistics = {name: value.to(features) for name, value in self._statistics.items()}
        if not statistics:
            tasks = self.task_count or int(ids.max()) + 1
            eye = torch.eye(size).expand(tasks, -1, -1).to(features)
            statistics["precision"] = torch.zeros_like(eye)
            statistics["evidence"] = features.new_zeros(tasks, size, outputs)
            statistics["mean"], statistics["covariance"] = torch.zeros_like(statistics["evidence"]), self.prior * eye
        transposed = features.transpose(1, 2)
        # Deviation 2: what earlier batches said is forgotten. Deviation 3: what this one says is tempered.
        for name, values in (("precision", features), ("evidence", targets)):
            statistics[name][ids] = self.memory * statistics[name][ids] + transposed @ values / self.temper
        self._calls += 1
        if self._calls % self.refresh == 0 or self._calls == self.warmup:
            eye = torch.eye(size).to(features)
            factor = torch.linalg.cholesky(statistics["precision"] + eye / self.prior)
            statistics["covariance"] = torch.cholesky_inverse(factor)
            statistics["mean"] = statistics["covariance"] @ statistics["evidence"]

    def aggregate(self, gradient: Tensor, variance: Tensor, valid: Tensor, owned: Tensor | None = None) -> Tensor:
        """What goes back from the features of every task: the gradient of its loss, reweighted.

        Args:
            gradient: `[T, N, A, F]`, expected gradient of each output's squared error.
            variance: `[T, N, A, F]`.
            valid: `[T, N]`.
            owned: `[T, A]`, one where a task has the output, zero where there is padding; None: all have all.

        Returns:
            `[T, N, F]`; zero where not valid.
        """
        there = None if owned is None else owned[:, None, :, None].to(gradient)
        trust = variance.clamp(min=LEAST_VARIANCE) ** -self.power
        share = valid / valid.sum(1, keepdim=True).clamp(min=1)  # of a datum in its task's loss
        if self.mode == "outputs":  # Deviation 1
            trust = trust if there is None else trust * there
            return share[..., None] * (trust * gradient).sum(2) / trust.sum(2)
        outputs = variance.shape[2] if there is None else there.sum(2)
        of_datum = (_output_mean(variance.clamp(min=LEAST_VARIANCE), there) / outputs) ** -self.power
        usual = (share[..., None] * of_datum).sum((0, 1)) / len(valid)
        return share[..., None] * (of_datum / usual) * _output_mean(gradient, there)

    def get_extra_state(self) -> State:
        """The statistics, whose size the first batch decides."""
        return {**super().get_extra_state(), "calls": self._calls, "statistics": dict(self._statistics)}

    def set_extra_state(self, state: State) -> None:
        """Continues from `get_extra_state`."""
        super().set_extra_state(state)
        self._calls, self._statistics = state["calls"], dict(state["statistics"])


def _output_mean(values: Tensor, there: Tensor | None) -> Tensor:
    """Means of values `[T, N, A, F]` over all outputs, or over those that a task has (`[T, 1, A, 1]`)."""
    return values.mean(2) if there is None else (values * there).sum(2) / there.sum(2)


def _rows(losses: TaskLosses) -> tuple[Tensor, Tensor]:
    """Features with a constant one `[T, N, F + 1]` and targets `[T, N, A]`, in float64; zero where not valid."""
    assert losses.features is not None and losses.targets is not None and losses.valid is not None
    features, targets = losses.features.detach().flatten(1, 2).double(), losses.targets.flatten(1, 2).double()
    valid = losses.valid.flatten(1)[..., None]
    constant = torch.ones_like(features[..., :1])  # Deviation 2
    return torch.cat([features, constant], -1) * valid, targets * valid


def condition(
    mean: Tensor, covariance: Tensor, features: Tensor, targets: Tensor, temper: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The Gaussian posterior of linear regression with unit noise, given a Gaussian prior.

    Args:
        mean: `[..., D, A]`.
        covariance: `[..., D, D]`, shared by all outputs.
        features: `[..., N, D]`.
        targets: `[..., N, A]`.
        temper: Variance of the noise.

    Returns:
        Mean `[..., D, A]` and covariance `[..., D, D]`.
    """
    transposed = features.transpose(-1, -2)
    if features.shape[-2] > features.shape[-1]:  # in information form: D x D systems instead of N x N
        prior = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
        after = torch.cholesky_inverse(torch.linalg.cholesky(prior + transposed @ features / temper))
        return after @ (prior @ mean + transposed @ targets / temper), after
    spread = covariance @ transposed  # [D, N]
    noise = temper * torch.eye(features.shape[-2]).to(features)
    gain = torch.linalg.solve(features @ spread + noise, spread.transpose(-1, -2)).transpose(-1, -2)
    return mean + gain @ (targets - features @ mean), covariance - gain @ spread.transpose(-1, -2)


def gradient_moments(features: Tensor, targets: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of `2 w (w h - y)`, the gradient of a squared error at the features, for Gaussian weights w.

    Args:
        features: h, `[..., N, D]`.
        targets: y, `[..., N, A]`.
        mean: `[..., D, A]`.
        covariance: S, `[..., D, D]`.

    Returns:
        Both `[..., N, A, D]`.
    """
    spread = (features @ covariance)[..., None, :]  # S h: [N, 1, D]
    square = (spread[..., 0, :] * features).sum(-1)[..., None, None]  # h S h: [N, 1, 1]
    error = (features @ mean - targets)[..., None]  # [N, A, 1]
    weights = mean.transpose(-1, -2)[..., None, :, :]  # [1, A, D]
    own = covariance.diagonal(dim1=-2, dim2=-1)[..., None, None, :]
    gradient = 2 * (spread + weights * error)
    variance = own * (square + error**2) + weights**2 * square + 2 * weights * error * spread + spread**2
    return gradient, 4 * variance
