"""Mixture of orthogonal experts (Hendawy et al., 2024)."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtorl import InputError
from mtorl.agents.networks.base import Backbone, check_network, over_inner_axes
from mtorl.agents.networks.soft_modules import ModuleLayer

EPSILON = 1e-6
"""Keeps experts that say the same, or nothing, apart."""


class MOORE(Backbone):
    """Experts whose features of an observation are made orthonormal, and of which every task takes its own mixture.

    Source: Hendawy et al., Multi-Task Reinforcement Learning with Mixture of Orthogonal Experts, 2024, section 4.
    The number of experts is theirs to choose per benchmark.

    Args:
        inputs: O.
        code: Z, at least 1.
        experts: n, at most the size of the last layer.
        hidden: Sizes of each expert's layers.
    """

    def __init__(self, inputs: int, code: int, experts: int = 4, hidden: Sequence[int] = (400, 400, 400)) -> None:
        super().__init__()
        check_network(self, code, hidden, experts=experts)
        if experts > hidden[-1]:
            raise InputError(f"experts is {experts}; expected at most {hidden[-1]}, the size of the last hidden layer.")
        self.size = hidden[-1]
        sizes = pairwise((inputs, *hidden))
        self.layers = nn.ModuleList([ModuleLayer(experts, *each, number == 0) for number, each in enumerate(sizes)])
        self.mix = nn.Linear(code, experts, bias=False)

    def maskable(self) -> list[nn.Module]:
        """The experts."""
        return [self.layers]

    def forward(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Tensor:
        """See `Backbone.forward`; there are no gains here."""
        shape = observations.shape[:-1]
        values = observations.flatten(0, -2)
        for number, layer in enumerate(self.layers):
            values = layer(functional.relu(values) if number else values)
        weights = over_inner_axes(self.mix(code), observations).expand(*shape, -1).flatten(0, -2)
        return torch.tanh(torch.bmm(weights[:, None], orthonormal(values))).view(*shape, self.size)


def orthonormal(vectors: Tensor) -> Tensor:
    """Vectors `[..., n, F]` after Gram and Schmidt: of length 1, each without what it shares with those before it."""
    apart = vectors + EPSILON * torch.eye(*vectors.shape[-2:], dtype=vectors.dtype, device=vectors.device)
    basis, triangle = torch.linalg.qr(apart.mT)
    sign = torch.where(triangle.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(basis)  # which QR leaves open
    return (basis * sign[..., None, :]).mT
