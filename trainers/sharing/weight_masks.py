"""Masks on the backbone's weight matrices: every task, or every group of tasks, computes with a share of each weight.

Only matrices that an agent declares maskable are masked; biases, norms, embeddings and heads belong to all tasks. The
maskable weights stand one after the other on an axis of length M.
"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.sharing.base import Sharing


class Place:
    """Where a maskable matrix stands.

    Args:
        name: Of the parameter.
        shape: Its shape.
        flat: Its place among all shared scalars `[P]`.
        mine: Its place among the maskable ones `[M]`.
    """

    def __init__(self, name: str, shape: torch.Size, flat: slice, mine: slice) -> None:
        self.name, self.shape, self.flat, self.mine = name, shape, flat, mine


class WeightMasks(Sharing):
    """Every task computes with the weights times its mask.

    Attributes:
        masks: `[rows, M]`, bool or in [0, 1]; which row is a task's, `row` says.
        places: Where each maskable matrix stands, by its name.
        moved: What `changed` is a share of, in words.
    """

    masks: Tensor
    moved: str

    @abstractmethod
    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, Place] = {}

    def locate(self, space: ParameterSpace) -> int:
        """Notes where the maskable matrices stand.

        Returns:
            M, the number of their weights.

        Raises:
            InputError: There is none.
        """
        self.places, stop = {}, 0
        for name, shape, maskable in zip(space.names, space.shapes, space.maskable, strict=True):
            if maskable:
                start, stop = stop, stop + math.prod(shape)
                self.places[name] = Place(name, shape, space.slice_of(name), slice(start, stop))
        if not self.places:
            raise InputError(
                "the agent has no maskable weights; expected an agent with hidden layers, not all of them frozen."
            )
        return stop

    def rows(self, tasks: int) -> int:
        """How many masks there are; one per task by default."""
        return tasks

    def row(self, task: int) -> int:
        """Which mask is a task's."""
        return task

    def mask(self, name: str, task: int) -> Tensor:
        """A task's mask of one matrix, of the matrix's shape."""
        place = self.places[name]
        return self.masks[self.row(task), place.mine].view(place.shape)

    def effective(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The parameters times the task's mask: zeros where it is off."""
        return self._with(parameters, self.masks[self.row(task)])

    def pull_back(self, gradients: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The gradients times the task's mask: zero where it is off."""
        for name in self.places.keys() & gradients.keys():
            gradients[name].mul_(factors(self.mask(name, task)))
        return gradients

    def stacked_effective(self, parameters: dict[str, Tensor], task_ids: Tensor) -> dict[str, Tensor]:
        """See `Sharing.stacked_effective`."""
        stacked = {name: value.expand(len(task_ids), *value.shape) for name, value in parameters.items()}
        return self.stacked_pull_back({name: value.clone() for name, value in stacked.items()}, task_ids)

    def stacked_pull_back(self, gradients: dict[str, Tensor], task_ids: Tensor) -> dict[str, Tensor]:
        """See `Sharing.stacked_pull_back`."""
        rows = torch.tensor([self.row(task) for task in task_ids.tolist()], device=self.masks.device)
        for name, place in ((name, self.places[name]) for name in self.places.keys() & gradients.keys()):
            gradients[name].mul_(factors(self.masks[rows, place.mine]).view(len(rows), *place.shape))
        return gradients

    def _with(self, parameters: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        """The parameters times a mask `[M]`."""
        return {
            name: value * factors(mask[self.places[name].mine].view(value.shape)) if name in self.places else value
            for name, value in parameters.items()
        }

    def overlap(self) -> Tensor:
        """Share of all maskable weights that two masks both keep, `[rows, rows]`: the mean of their products."""
        products = self.masks.new_zeros(len(self.masks), len(self.masks), dtype=torch.float64)
        for part in self.masks.split(1 << 16, 1):
            values = part.float()
            products += (values @ values.T).double()
        return products / self.masks.shape[1]

    def densities(self) -> dict[str, Tensor]:
        """Share of each matrix's weights that each mask keeps, `[rows]` by the matrix's name."""
        return {name: self.masks[:, place.mine].double().mean(1) for name, place in self.places.items()}

    @abstractmethod
    def changed(self) -> float:
        """How far masks are from where they began, from 0 to 1; mean of the masks."""

    def _check(self, shapes: dict[str, list[int]], count: int, what: str) -> None:
        """Raises InputError unless so many masks of these matrices fit; names the matrices that differ."""
        expected = {name: list(place.shape) for name, place in self.places.items()}
        differing = [
            f"{name}: expected {expected.get(name, 'no such matrix')}, found {shapes.get(name, 'no such matrix')}"
            for name in {**expected, **shapes}
            if expected.get(name) != shapes.get(name)
        ]
        if differing:
            raise InputError(f"{what} are of another network ({'; '.join(differing)}). Use those of the same agent.")
        if count != len(self.masks):
            raise InputError(f"{what} are {count}; expected {len(self.masks)}, for as many tasks or groups.")


def factors(mask: Tensor) -> Tensor:
    """A mask as what weights are multiplied by."""
    return mask.view(torch.uint8) if mask.dtype == torch.bool else mask  # torch multiplies by bytes faster than by bool
