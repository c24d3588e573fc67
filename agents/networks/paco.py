"""Parameter-compositional networks (Sun et al., 2022)."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtorl.agents.networks.base import Backbone, check_network
from mtorl.agents.networks.soft_modules import ModuleLayer

Weights = list[tuple[Tensor, Tensor]]
"""Matrix `[T, outputs, inputs]` and bias `[T, 1, outputs]` of each layer."""


class PaCo(Backbone):
    """Linear layers whose weights are, for every task, its own mixture of a few sets of weights that all share.

    Deviation 1: the published scheme that leaves out tasks whose loss explodes is not there.

    Source: Sun et al., PaCo: Parameter-Compositional Multi-Task Reinforcement Learning, 2022, section 3.

    Args:
        inputs: O.
        code: Z, at least 1.
        components: K, sets of weights.
        hidden: Sizes of the layers.
    """

    def __init__(self, inputs: int, code: int, components: int = 5, hidden: Sequence[int] = (400, 400, 400)) -> None:
        super().__init__()
        check_network(self, code, hidden, components=components)
        self.size = hidden[-1]
        self.layers = nn.ModuleList([ModuleLayer(components, *each, True) for each in pairwise((inputs, *hidden))])
        self.mix = nn.Linear(code, components)  # Deviation 1: moved by every task's loss, whatever its size
        nn.init.constant_(self.mix.bias, components**-0.5)  # a mixture of independent weights is of their size

    def maskable(self) -> list[nn.Module]:
        """The sets of weights."""
        return [self.layers]

    def mixed(self) -> list[nn.Module]:
        """The sets of weights."""
        return [self.layers]

    def composed(self, code: Tensor) -> Weights:
        """The weights of the tasks with these codes `[T, Z]`."""
        mixtures, found = self.mix(code), []  # Deviation 1: of all tasks, however their losses stand
        for layer in self.layers:
            assert isinstance(layer, ModuleLayer)
            matrix, bias = layer.merged(mixtures)
            found.append((matrix.unflatten(0, (len(code), -1)), bias.view(len(code), 1, -1)))
        return found

    def forward(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Tensor:
        """See `Backbone.forward`; there are no gains here."""
        values = observations.reshape(len(code), -1, observations.shape[-1])
        for matrix, bias in self.composed(code):
            values = functional.relu(torch.baddbmm(bias, values, matrix.mT))
        return values.view(*observations.shape[:-1], self.size)

    def prepared(self, code: Tensor, gains: Sequence[Tensor] = ()) -> Callable[[Tensor], Tensor]:
        """See `Backbone.prepared`: where all rows are of one task, its weights are composed once."""
        if bool((code != code[:1]).any()):
            return super().prepared(code, gains)
        weights = self.composed(code[:1])

        def features(observations: Tensor) -> Tensor:
            values = observations
            for matrix, bias in weights:
                values = functional.relu(functional.linear(values, matrix[0], bias[0, 0]))
            return values

        return features
