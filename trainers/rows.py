"""Where the gradients of single tasks are written."""

import torch
from torch import Tensor

from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.sharing.base import Sharing


class GradientRows:
    """Where gradients are written, `[T, P]`: pulled back through a sharing, or as they are.

    Args:
        space: Names and places of the parameters.
        values: `[T, P]`.
        sharing: Pull back through it; None leaves the gradients as they are.
        task_ids: `[T]`, for the sharing.
        adding: Add to what is there.

    Attributes:
        values: The same.
        own: Gradients of the sharing's own parameters by name, summed over tasks.
    """

    def __init__(
        self,
        space: ParameterSpace,
        values: Tensor,
        sharing: Sharing | None = None,
        task_ids: Tensor | None = None,
        adding: bool = False,
    ) -> None:
        self._space, self.values, self._adding = space, values, adding
        self._sharing = None if sharing is None or sharing.uniform else sharing
        self._task_ids = torch.empty(0) if task_ids is None else task_ids
        parameters = self._sharing.named_parameters() if self._sharing is not None else ()
        self.own = {name: torch.zeros_like(value) for name, value in parameters}

    def write(self, row: int, gradients: dict[str, Tensor]) -> None:
        """Writes the gradient of one task."""
        if self._sharing is not None:
            task = int(self._task_ids[row])
            self._sharing.add_own_gradients(self.own, gradients, task)
            gradients = self._sharing.pull_back(gradients, task)
        for name, view in self._space.unflatten(self.values[row]).items():
            self._put(view, gradients[name])

    def write_all(self, gradients: dict[str, Tensor]) -> None:
        """Writes those of all tasks, each with the tasks as its first axis."""
        if self._sharing is not None:
            for row, task in enumerate(self._task_ids.tolist() if self.own else ()):
                mine = {name: value[row] for name, value in gradients.items()}
                self._sharing.add_own_gradients(self.own, mine, task)
            gradients = self._sharing.stacked_pull_back(gradients, self._task_ids)
        for name, value in gradients.items():
            self._put(self.values[:, self._space.slice_of(name)], value.flatten(1))

    def _put(self, place: Tensor, value: Tensor) -> None:
        if self._adding:
            place += value
        else:
            place.copy_(value)
