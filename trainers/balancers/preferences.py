"""Scalarisations that keep the losses in given proportions."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtorl import InputError, checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.balancers.base import LossWeighting, sizes


class PreferenceScalarisation(LossWeighting):
    """A scalarisation with a preference: a vector of positive numbers, along which the losses are to lie.

    Args:
        preferences: One number per task, in the suite's order; equal ones by default.
    """

    def __init__(self, preferences: Sequence[float] | None = None) -> None:
        super().__init__()
        if preferences is not None and not all(0 < value < math.inf for value in [*preferences] or [0]):
            raise InputError(f"preferences is {list(preferences)}; expected a positive number per task.")
        self.preferences = preferences

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`."""
        super().init(tasks, space, generator)
        if self.preferences is not None and len(self.preferences) != tasks:
            raise InputError(
                f"{type(self).__name__} has {len(self.preferences)} preferences; expected one for each of the {tasks} "
                "tasks."
            )

    def preference(self, task_ids: Tensor) -> Tensor:
        """Of the tasks `[T]` with these ids, summing to one."""
        chosen = [1.0 if self.preferences is None else self.preferences[task] for task in task_ids.tolist()]
        values = torch.tensor(chosen, dtype=torch.float64)
        return values / values.sum()


class PBI(PreferenceScalarisation):
    """Descends how far the losses lie along the preference, and `theta` times how far they lie aside of it.

    Source: Zhang and Li, MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition, 2007, section III:
    penalty-based boundary intersection; the least losses are taken to be zero. Deviation 1: a task whose loss is too
    small for the preference rests; as published its loss would be made larger.

    Args:
        preferences: One number per task, in the suite's order: losses of (1, 2) are to become as one to two. Equal
            ones by default.
        theta: Weight of the distance aside. With the 5 of the paper, all but the tasks with the largest losses rest.
    """

    def __init__(self, preferences: Sequence[float] | None = None, theta: float = 1.0) -> None:
        super().__init__(preferences)
        checks.within("[0, inf)", theta=theta)
        self.theta = theta

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """The derivative by each loss."""
        values = sizes(losses.detach(), self)
        direction = torch.nn.functional.normalize(self.preference(task_ids), dim=0)
        aside = values - (values @ direction) * direction
        distance = aside.norm()
        slope = aside / distance if distance > 1e-12 * values.norm() else torch.zeros_like(aside)
        return (direction + self.theta * slope).clamp(min=0)  # Deviation 1


class COSMOS(PreferenceScalarisation):
    """Descends the losses weighted with the preference, less `penalty` times their cosine with it.

    Source: Ruchte and Grabocka, Scalable Pareto Front Approximation for Deep Multi-Objective Learning, 2021, equation
    4. Deviation 1: the preference is given, not drawn for every batch and shown to the network: one policy is trained,
    not a whole front. Deviation 2: a task whose weight would be negative rests.

    Args:
        preferences: One number per task, in the suite's order; equal ones by default.
        penalty: Weight of the cosine, in units of the losses.
    """

    def __init__(self, preferences: Sequence[float] | None = None, penalty: float = 0.1) -> None:
        super().__init__(preferences)
        checks.within("[0, inf)", penalty=penalty)
        self.penalty = penalty

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """The derivative by each loss."""
        values, preference = sizes(losses.detach(), self), self.preference(task_ids)  # Deviation 1
        one, other = (torch.nn.functional.normalize(it, dim=0) for it in (preference, values))
        slope = (one - (one @ other) * other) / values.norm()
        return (preference - self.penalty * slope).clamp(min=0)  # Deviation 2
