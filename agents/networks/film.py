"""Feature-wise linear modulation (Perez et al., 2018)."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from mtorl.agents.networks.base import Backbone, check_network, over_inner_axes


class FiLM(Backbone):
    """Linear layers of which every output is scaled and shifted as the task's vector says; plain ones at first.

    Source: Perez et al., FiLM: Visual Reasoning with a General Conditioning Layer, 2018, equation 2.

    Args:
        inputs: O.
        code: Z, at least 1.
        hidden: Sizes of the layers.
    """

    def __init__(self, inputs: int, code: int, hidden: Sequence[int] = (400, 400, 400)) -> None:
        super().__init__()
        check_network(self, code, hidden)
        self.size = hidden[-1]
        self.layers = nn.ModuleList([nn.Linear(before, after) for before, after in pairwise((inputs, *hidden))])
        self.modulation = nn.ModuleList([nn.Linear(code, 2 * size) for size in hidden])
        for layer in self.modulation:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def maskable(self) -> list[nn.Module]:
        """The layers that are modulated."""
        return [self.layers]

    def forward(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Tensor:
        """See `Backbone.forward`; there are no gains here."""
        values = observations
        for layer, modulation in zip(self.layers, self.modulation, strict=True):
            scale, shift = over_inner_axes(modulation(code), observations).chunk(2, -1)
            values = functional.relu(layer(values) * (1 + scale) + shift)
        return values
