"""Masks that move without looking at gradients: a second control."""

import torch
from torch import Tensor

from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.gradients import DenseGradients
from mtorl.trainers.sharing.densities import Distribution
from mtorl.trainers.sharing.masks import MovingMasks, Place, Scope, SwapSchedule


class MagnitudeMasks(MovingMasks):
    """Every mask leaves out its smallest weights and takes in random ones: sparse evolutionary training, per task.

    Source: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse connectivity, 2018.

    Args:
        sparsity: Share of the maskable weights that a mask leaves out, in [0, 1).
        distribution: Over the matrices at first: `erk` (small and narrow matrices keep more) or `uniform`.
        interval: Training steps between two changes.
        swap_fraction: Share of a mask's zeros that move in a change, at the most; see `schedule`.
        swap_count: The same as a number of weights, instead of the share.
        schedule: How many of these move as training goes on: `hump` (none, all at half time, none), `decay` (all to
            none along a cosine) or `constant`.
        scope: Compare weights over the whole network, or within each matrix, whose density then never changes.
    """

    def __init__(
        self,
        sparsity: float = 0.2,
        distribution: Distribution = "erk",
        interval: int = 100,
        swap_fraction: float = 0.05,
        swap_count: int | None = None,
        schedule: SwapSchedule = "hump",
        scope: Scope = "global",
    ) -> None:
        super().__init__(sparsity, distribution, interval, swap_fraction, swap_count, schedule, scope, probes=0)

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """See `TaskMasks.init`; the generator also draws what is taken in."""
        super().init(space, tasks, generator)
        self._generator = generator

    def prepare(self, parameters: dict[str, Tensor], gradients: DenseGradients) -> None:
        """The weights' magnitudes."""
        self._magnitude = torch.cat([parameters[name].detach().flatten() for name in self.places]).abs()

    def forget(self) -> None:
        """See `MovingMasks.forget`."""
        del self._magnitude

    def scores(self, row: int, place: Place) -> tuple[Tensor, Tensor]:
        """See `MovingMasks.scores`."""
        magnitude = self._magnitude[place.mine]
        return magnitude, torch.rand(len(magnitude), generator=self._generator).to(magnitude)

    def get_extra_state(self) -> dict:
        """The masks, and where the draws stand."""
        return super().get_extra_state() | {"generator": self._generator.get_state()}

    def set_extra_state(self, state: dict) -> None:
        """See `get_extra_state`."""
        super().set_extra_state(state)
        self._generator.set_state(state["generator"])
