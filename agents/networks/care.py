"""Contextual attention over encoders (Sodhani et al., 2021)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtorl.agents.networks.base import Backbone, check_network, over_inner_axes
from mtorl.agents.networks.mlp import MLPBackbone
from mtorl.agents.networks.soft_modules import ModuleLayer


class CARE(Backbone):
    """Encoders of what is observed, mixed as the task decides by attention, and linear layers that read the mixture.

    Deviation 1: the context is the task's vector (onehot, or learned), not a sentence about the task that a language
    model read.

    Source: Sodhani et al., Multi-Task Reinforcement Learning with Context-based Representations, 2021, section 4.
    Published: 6 encoders of 2 layers of 50.

    Args:
        inputs: O.
        code: Z, at least 1.
        encoders: k.
        encoding: Size of an encoder's layers, of the context and of the attention network's layer.
        hidden: Sizes of the layers after them.
    """

    def __init__(
        self, inputs: int, code: int, encoders: int = 6, encoding: int = 50, hidden: Sequence[int] = (400, 400, 400)
    ) -> None:
        super().__init__()
        check_network(self, code, hidden, encoders=encoders, encoding=encoding)
        self.encoders = nn.ModuleList(
            [ModuleLayer(encoders, inputs, encoding, True), ModuleLayer(encoders, encoding, encoding, False)]
        )
        # Deviation 1: of the task's vector
        self.context = nn.Sequential(nn.Linear(code, encoding), nn.ReLU(), nn.Linear(encoding, encoding))
        self.attention = nn.Sequential(nn.Linear(encoding, encoding), nn.ReLU(), nn.Linear(encoding, encoders))
        self.trunk = MLPBackbone(encoding, encoding, hidden)
        self.size = self.trunk.size

    def maskable(self) -> list[nn.Module]:
        """Encoders and the layers after them."""
        return [self.encoders, *self.trunk.maskable()]

    def forward(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Tensor:
        """See `Backbone.forward`; there are no gains here."""
        shape, context = observations.shape[:-1], self.context(code)  # Deviation 1
        first, second = self.encoders
        encoded = second(functional.relu(first(observations.flatten(0, -2))))
        attention = over_inner_axes(self.attention(context).softmax(-1), observations).expand(*shape, -1)
        mixed = torch.bmm(attention.flatten(0, -2)[:, None], encoded)
        return self.trunk(mixed.view(*shape, -1), context)

    def mean_weights(self, observations: Tensor, code: Tensor) -> list[Tensor]:
        """See `Backbone.mean_weights`: the attention to each encoder."""
        return [self.attention(self.context(code)).softmax(-1)]
