"""Dynamic weight average."""

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.balancers.base import LossWeighting, check_positive
from mtorl.trainers.balancers.period_means import PeriodMeans


class DWA(LossWeighting):
    """More weight for tasks whose loss falls slowly from one period to the next.

    Source: Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, 2019, equation 7. An epoch is
    `period` training steps; the weights are equal until two of them are complete, and sum to the number of tasks.

    Args:
        temperature: Large values make the weights equal.
        period: Training steps over which losses are averaged.
    """

    def __init__(self, temperature: float = 2.0, period: int = 1000) -> None:
        super().__init__()
        if temperature <= 0 or period < 1:
            raise InputError(f"temperature is {temperature}, period {period}; expected both to be positive.")
        self.temperature, self.period = temperature, period

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`."""
        super().init(tasks, space, generator)
        self.means = PeriodMeans(tasks, self.period)

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """See `LossWeighting.weights`."""
        self._ready(len(losses))
        check_positive(losses, self)
        ratios = self.means.last[task_ids] / self.means.before[task_ids].clamp(min=1e-12)
        self.means.add(losses, task_ids)
        return len(losses) * (ratios.nan_to_num(nan=1.0) / self.temperature).softmax(0)
