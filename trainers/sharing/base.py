"""Which parameters each task computes with."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from mtorl.agents.parameters import ParameterSpace


class Sharing(nn.Module, ABC):
    """From the shared parameters to those of one task. State lives in buffers, so it is saved and resumed.

    Attributes:
        uniform: All tasks compute with the shared parameters as they are, in one pass.
    """

    uniform = False

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """Prepares for the shared parameters of one phase and T tasks; called once, before training."""

    @abstractmethod
    def effective(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The parameters with which a task computes.

        Args:
            parameters: The shared parameters by name.
            task: Id of the task.
        """
