"""Dynamic weight average."""

import torch
from torch import Tensor

from mtorl import checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.balancers.base import LossWeighting, sizes
from mtorl.trainers.balancers.period_means import PeriodMeans


class DWA(LossWeighting):
    """More weight for tasks whose loss falls slowly from one period to the next.

    Source: Liu, Johns and Davison, End-to-End Multi-Task Learning with Attention, 2019, equation 7. Deviation 1:
    periods stand for epochs. The weights are equal until two of them are complete, and sum to the number of tasks.

    Args:
        temperature: Large values make the weights equal.
        period: Training steps over which losses are averaged; below 1, as a share of all training steps.
    """

    def __init__(self, temperature: float = 2.0, period: float = 0.05) -> None:
        super().__init__()
        checks.within("(0, inf)", temperature=temperature, period=period)
        self.temperature, self.period = temperature, period

    def init(self, tasks: int, space: ParameterSpace | None, generator: torch.Generator) -> None:
        """See `Balancer.init`."""
        super().init(tasks, space, generator)
        self.means = PeriodMeans(tasks, self.span(self.period))  # Deviation 1

    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """See `LossWeighting.weights`."""
        self._ready(len(losses))
        ratios = self.means.last[task_ids] / self.means.before[task_ids]
        self.means.add(sizes(losses.detach(), self), task_ids)
        return len(losses) * (ratios.nan_to_num(nan=1.0) / self.temperature).softmax(0)
