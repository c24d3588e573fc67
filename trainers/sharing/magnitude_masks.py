"""Masks that move without looking at gradients: a second control."""

import torch
from torch import Tensor

from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.gradients import DenseGradients
from mtorl.trainers.sharing.masks import MovingMasks, Place


class MagnitudeMasks(MovingMasks):
    """Every mask leaves out its smallest weights and takes in random ones: sparse evolutionary training, per task.

    Source: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse connectivity, 2018.
    """

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """See `TaskMasks.init`; the generator also draws what is taken in."""
        super().init(space, tasks, generator)
        self._generator = generator

    def prepare(self, parameters: dict[str, Tensor], gradients: DenseGradients) -> None:
        """The weights' magnitudes."""
        self._magnitude = torch.cat([parameters[name].detach().flatten() for name in self.places]).abs()

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
