"""All tasks share everything."""

from torch import Tensor

from mtorl.trainers.sharing.base import Sharing


class Shared(Sharing):
    """Hard parameter sharing: every task computes with the same parameters."""

    uniform = True

    def effective(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The parameters themselves."""
        return parameters

    def pull_back(self, gradients: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The gradients themselves."""
        return gradients
