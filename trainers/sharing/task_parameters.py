"""Values of their own that tasks have for some of the shared tensors."""

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from mtorl import InputError, checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.sharing.base import Sharing

Tensors = Literal["all", "maskable"]


class TaskParameters(Sharing):
    """Members with learned parameters for every task.

    Args:
        tensors: For which of the shared tensors: all, or the weight matrices that masks may touch.
    """

    @abstractmethod
    def __init__(self, tensors: Tensors) -> None:
        super().__init__()
        checks.one_of("tensors", tensors, Tensors)
        self.tensors = tensors

    def chosen(self, space: ParameterSpace, matrices: bool = False) -> dict[str, torch.Size]:
        """Names and shapes of the tensors.

        Args:
            space: The shared parameters.
            matrices: Only those with two axes.

        Raises:
            InputError: There are none.
        """
        found = {
            name: shape
            for name, shape, maskable in zip(space.names, space.shapes, space.maskable, strict=True)
            if (maskable or self.tensors == "all") and (len(shape) == 2 or not matrices)
        }
        if not found:
            raise InputError(
                f"the agent shares no parameters that are {self.tensors}; expected some. Use another "
                "--sharing.tensors, or an agent with hidden layers that are not all frozen."
            )
        return found

    def pull_back(self, gradients: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The same for every task."""
        return self.stacked_pull_back(gradients, torch.empty(0))
