"""Weights that the user chose."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.balancers.base import LossWeighting


class FixedWeights(LossWeighting):
    """The weighted sum of the losses, with constant weights.

    Args:
        values: One weight per task, in the suite's order; they are used as they are (Equal has 1/T each).
    """

    def __init__(self, values: Sequence[float]) -> None:
        super().__init__()
        if not values or not all(0 <= value < math.inf for value in values) or not max(values) > 0:
            raise InputError(f"values is {list(values)}; expected a weight per task, none negative and not all zero.")
        self.register_buffer("values", torch.tensor(values, dtype=torch.float64))

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`."""
        super().init(tasks, space, generator)
        if len(self.values) != tasks:
            raise InputError(f"FixedWeights has {len(self.values)} values; expected one for each of the {tasks} tasks.")

    values: Tensor

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """See `LossWeighting.weights`."""
        return self.values[task_ids]
