"""Linear layers."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtorl.agents.networks.base import Backbone, Network, check_sizes, over_inner_axes


class MLPBackbone(Backbone):
    """Linear layers, each followed by ReLU, on observation and code.

    Args:
        inputs: O.
        code: Z.
        hidden: Sizes of the layers.
    """

    def __init__(self, inputs: int, code: int, hidden: Sequence[int]) -> None:
        super().__init__()
        check_sizes("hidden", hidden)
        self.inputs, self.size = inputs, hidden[-1]
        self.layers = nn.ModuleList([nn.Linear(before, after) for before, after in pairwise((inputs + code, *hidden))])

    def maskable(self) -> list[nn.Module]:
        """All layers."""
        return [self.layers]

    def forward(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Tensor:
        """See `Backbone.forward`."""
        code = over_inner_axes(code, observations).expand(*observations.shape[:-1], -1)
        values = torch.cat([observations, code], -1)
        for number, layer in enumerate(self.layers):
            values = layer(values)
            if gains:
                values = values * over_inner_axes(gains[number], values)
            values = functional.relu(values)
        return values

    def prepared(self, code: Tensor, gains: Sequence[Tensor] = ()) -> Callable[[Tensor], Tensor]:
        """See `Backbone.prepared`: the same bits; the input has one array, layers change theirs in place."""
        weights = [(layer.get_parameter("weight"), layer.get_parameter("bias")) for layer in self.layers]
        values = torch.cat([code.new_zeros(len(code), self.inputs), code.detach()], -1)
        seen = values[:, : self.inputs]

        def features(observations: Tensor) -> Tensor:
            seen.copy_(observations)
            hidden = values
            for number, (weight, bias) in enumerate(weights):
                hidden = functional.linear(hidden, weight, bias)
                if gains:
                    hidden = hidden.mul_(gains[number])
                hidden = hidden.relu_()
            return hidden

        return features


def build_network(network: Network | None, inputs: int, code: int, hidden: Sequence[int] = (256, 256)) -> Backbone:
    """The network, or linear layers of these sizes if none is named."""
    return MLPBackbone(inputs, code, hidden) if network is None else network(inputs, code)
