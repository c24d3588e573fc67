"""A sub-network for every task, drawn once."""

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.sharing.base import Sharing


class RandomMasks(Sharing):
    """Every task computes with its own random subset of the backbone's weights, fixed for the whole run.

    Source: the variant R of HarmoDT (Hu et al., 2024), with the same density in every matrix.

    Args:
        density: Share of the maskable weights that a task keeps, in (0, 1].
    """

    masks: Tensor

    def __init__(self, density: float = 0.8) -> None:
        super().__init__()
        if not 0 < density <= 1:
            raise InputError(f"density is {density}; expected a share in (0, 1].")
        self.density = density
        self._space: ParameterSpace | None = None

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """Draws the masks, bool `[tasks, P]`; what is not maskable belongs to every task."""
        masks = torch.ones(tasks, len(space), dtype=torch.bool)
        for start, stop, maskable in zip(space.offsets[:-1], space.offsets[1:], space.maskable, strict=True):
            if maskable:
                masks[:, start:stop] = torch.rand(tasks, stop - start, generator=generator) < self.density
        self.register_buffer("masks", masks)
        self._space = space

    def effective(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The parameters, with zeros where the task's mask is off."""
        assert self._space is not None, "init() before effective()"
        masks = self._space.unflatten(self.masks[task])
        return {name: value * masks[name] for name, value in parameters.items()}

    def pull_back(self, dense: Tensor, task_ids: Tensor) -> Tensor:
        """Zero where the task's mask is off."""
        return dense * self.masks[task_ids]

    def used(self, task_ids: Tensor) -> Tensor | None:
        """See `Sharing.used`."""
        return self.masks[task_ids].any(0)
