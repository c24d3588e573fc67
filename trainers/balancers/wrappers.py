"""Stages around a method: each changes one thing and holds the next one, so that they compose.

--balancer Rescaled --balancer.inner Averaged --balancer.inner.inner PCGrad
"""

import copy
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl import InputError, checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.balancers.base import Balancer, GradientAggregation, Matrix, Vector, sizes
from mtorl.trainers.balancers.solvers import noise, norm
from mtorl.trainers.gradients import gramian
from mtorl.trainers.update import MultiTaskUpdate

LEAST_SUM = 1e-3
"""Weights that cancel out to less than this share of their sizes are not brought to a sum."""


class GradientWrapper(GradientAggregation):
    """A stage around a method that sees the Gramian.

    Args:
        inner: The method.
    """

    def __init__(self, inner: GradientAggregation) -> None:
        super().__init__()
        if type(inner).step is not GradientAggregation.step:
            name, holds = type(self).__name__, type(inner).__name__
            remedy = f"Put {name} into {holds}" if isinstance(inner, GradientWrapper) else f"Use {holds} alone"
            raise InputError(
                f"{name} holds {holds}, which works on whole steps and not on weights; expected it outside. {remedy}."
            )
        self.inner = inner

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`; both draw from one stream."""
        super().init(tasks, space, generator)
        self.inner.init(tasks, space, generator)


class Prescaled(GradientWrapper):
    """Divides every task's loss, and so its gradient, before the method sees it.

    Args:
        inner: The method.
        by: The loss itself, so that logarithms of losses are descended (loss); or the task's first loss (first).
    """

    first_losses: Tensor

    def __init__(self, inner: GradientAggregation, by: Literal["loss", "first"] = "loss") -> None:
        super().__init__(inner)
        checks.one_of("by", by, ("loss", "first"))
        self.by = by

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """Each task's first loss."""
        return {"first_losses": torch.full((tasks,), float("nan"), dtype=torch.float64)}

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        losses, first = sizes(losses, self), self.first_losses.numpy()
        first[task_ids] = np.where(np.isnan(first[task_ids]), losses, first[task_ids])
        units = 1 / (losses if self.by == "loss" else first[task_ids])
        return units * self.inner.solve(gramian * np.outer(units, units), units * losses, task_ids)


class Averaged(GradientWrapper):
    """Moving averages of the method's weights, which calm it down: CR-MOGM.

    Source: Zhou et al., On the Convergence of Stochastic Multi-Objective Gradient Manipulation and Beyond, 2022.

    Args:
        inner: The method.
        decay: Share of the old weights.
    """

    averages: Tensor

    def __init__(self, inner: GradientAggregation, decay: float = 0.9) -> None:
        super().__init__(inner)
        checks.within("[0, 1)", decay=decay)
        self.decay = decay

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """The averaged weight of every task; NaN before its first one."""
        return {"averages": torch.full((tasks,), float("nan"), dtype=torch.float64)}

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`."""
        new, averages = self.inner.solve(gramian, losses, task_ids), self.averages.numpy()
        old = np.where(np.isnan(averages[task_ids]), new, averages[task_ids])
        averages[task_ids] = self.decay * old + (1 - self.decay) * new
        return averages[task_ids].copy()


class Rescaled(GradientWrapper):
    """Brings directions of methods to one scale, so that one learning rate fits them.

    Args:
        inner: The method.
        mode: The weights sum to the number of tasks (sum_to_T), or the direction is as long as the task gradients are
            on average (match_mean_norm), or it is left alone (none).
    """

    def __init__(
        self, inner: GradientAggregation, mode: Literal["none", "sum_to_T", "match_mean_norm"] = "match_mean_norm"
    ) -> None:
        super().__init__(inner)
        checks.one_of("mode", mode, ("none", "sum_to_T", "match_mean_norm"))
        self.mode = mode

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """See `GradientAggregation.solve`; a direction that is zero, as far as one can tell, stays as it is."""
        weights = self.inner.solve(gramian, losses, task_ids)
        if self.mode == "sum_to_T":
            total, size = abs(weights.sum()), np.abs(weights).sum()
            return weights * (len(weights) / total) if total > LEAST_SUM * size else weights
        if self.mode == "match_mean_norm":
            norms, length = np.sqrt(np.diag(gramian)), norm(gramian, weights)
            told_apart = length**2 > noise(len(weights)) * np.square(weights * norms).sum()
            return weights * (norms.mean() / length) if told_apart else weights
        return weights


class Reused(GradientWrapper):
    """Asks the method for new weights only now and then; in between a step costs one weighted backward pass.

    Args:
        inner: The method.
        every: Training steps for which weights are used.
    """

    kept: Tensor
    calls: Tensor

    def __init__(self, inner: GradientAggregation, every: int = 4) -> None:
        super().__init__(inner)
        checks.at_least(1, every=every)
        self.every = every

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """The weight of every task, NaN before its first one; and how many batches there were."""
        return {
            "kept": torch.full((tasks,), float("nan"), dtype=torch.float64),
            "calls": torch.zeros((), dtype=torch.int64),
        }

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """New weights, which are kept."""
        weights = self.inner.solve(gramian, losses, task_ids)
        self.kept[torch.from_numpy(task_ids)] = torch.from_numpy(weights)
        return weights

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """A step of the method, or one with the weights that are kept."""
        weights = self.kept[update.task_ids.cpu()]
        due = int(self.calls) % self.every == 0 or bool(weights.isnan().any())
        self.calls += 1
        if due:
            return super().step(update)
        losses = update.losses().values
        return update.descend_loss((weights.to(losses) * losses).sum(), weights, private=losses.sum())


class Layerwise(GradientWrapper):
    """Applies the method to every parameter tensor by itself: weights, and conflicts, of its own.

    Args:
        inner: The method; every tensor has its own copy, with its own state.
    """

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`."""
        count = len(space.names) if space is not None else 1
        self.copies = torch.nn.ModuleList([copy.deepcopy(self.inner) for _ in range(count)])
        super().init(tasks, space, generator)
        for member in self.copies:
            assert isinstance(member, GradientAggregation)
            member.init(tasks, space, generator)

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """The method itself: a single Gramian has no layers."""
        return self.inner.solve(gramian, losses, task_ids)

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """All task gradients, one direction for each tensor."""
        gradients, space = update.gradients(), update.phase.space
        direction = torch.empty_like(gradients.pulled_back[0])
        for member, name in zip(self.copies, space.names, strict=True):
            assert isinstance(member, GradientAggregation)
            place = space.slice_of(name)
            rows = gradients.pulled_back[:, place]
            weights = member.weights(gramian(rows), gradients.losses, update.task_ids)
            direction[place] = weights.to(rows) @ rows
        return update.descend(direction)


class Subsampled(Balancer):
    """Gives the method a random part of every batch's tasks; the others rest for that step.

    Args:
        inner: Any balancer.
        tasks: Tasks in a step.
    """

    needs = "what the inner one needs, of some tasks"

    def __init__(self, inner: Balancer, tasks: int = 4) -> None:
        super().__init__()
        checks.at_least(1, tasks=tasks)
        self.inner, self.tasks = inner, tasks

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`; both draw from one stream."""
        super().init(tasks, space, generator)
        self.inner.init(tasks, space, generator)

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """A step of the inner one on some of the tasks."""
        count = len(update.task_ids)
        chosen = torch.randperm(count, generator=self._generator)[: self.tasks].sort().values
        return self.inner.step(update.select(chosen))
