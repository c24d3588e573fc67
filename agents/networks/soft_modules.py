"""Soft modularization (Yang et al., 2020): layers of modules, of which every task uses a mixture of its own.

Deviations:
1. The modules of a layer are one matrix, multiplied at once.
2. Which mixture is used can depend on the task alone (`routing=task`). Then the modules are merged for acting.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtorl import InputError, checks
from mtorl.agents.networks.base import Backbone, check_sizes, over_inner_axes

Routing = Literal["state", "task"]
FEW = 32
"""Rows up to which a layer puts its weights first in products: their gradient then needs no transposition, which is
what takes the time with few rows; with many rows transposing those would take longer."""


class SoftModularMLP(Backbone):
    """n modules in each of L layers; module i of a layer reads a weighted mean of the modules of the layer before.

    The weights come from a routing network that reads the task's code, and the observation as well unless they are to
    depend on the task alone; the weights of a layer depend on those of all layers before.

    Source: Yang et al., Multi-Task Reinforcement Learning with Soft Modularization, 2020, section 4 and the authors'
    code. Published sizes: 2 modules in 2 layers of 256 (shallow), 4 modules in 4 layers of 128 (deep).

    Args:
        inputs: O.
        code: Z.
        modules: n.
        layers: L.
        width: Outputs of a module.
        base: Sizes of the layers before the modules. The code is mapped to as many values as the last one has.
        gating: Sizes of the routing network's layers.
        routing: Weights depend on observation and task (state), or on the task alone (task).
    """

    def __init__(
        self,
        inputs: int,
        code: int,
        modules: int = 2,
        layers: int = 2,
        width: int = 256,
        base: Sequence[int] = (400, 400),
        gating: Sequence[int] = (256, 256),
        routing: Routing = "state",
    ) -> None:
        super().__init__()
        _check(modules, layers, width, base, gating, routing, code)
        self.modules_per_layer, self.routing, self.size = modules, routing, width
        sizes = (inputs, *base)
        self.base = nn.ModuleList([nn.Linear(before, after) for before, after in pairwise(sizes)])
        self.layers = nn.ModuleList(
            [ModuleLayer(modules, base[-1] if number == 0 else width, width, number == 0) for number in range(layers)]
        )
        shapes = [(modules, modules)] * (layers - 1) + [(modules,)]
        self.router = SoftRouter(code, base[-1], gating, shapes)

    def maskable(self) -> list[nn.Module]:
        """All but the routing network."""
        return [self.base, self.layers]

    def forward(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Tensor:
        """See `Backbone.forward`; there are no gains here."""
        shape = observations.shape[:-1]
        base = self._base(observations)
        weights = self.weights(base, code)
        if self.routing == "task":  # Deviation 2
            inner = [it.view(len(code), *[1] * (base.ndim - 2), *it.shape[1:]) for it in weights]
            weights = [it.expand(*shape, *it.shape[len(shape) :]) for it in inner]
        flat = [it.flatten(0, len(shape) - 1) for it in weights]
        return self.mix(base.flatten(0, -2), flat).view(*shape, self.size)

    def mix(self, base: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """The modules alone: features `[M, F]` of `[M, D]`, with weights `[M, n, n]`, ..., `[M, n]` for each layer."""
        values = self.layers[0](functional.relu(base))
        for layer, mixture in zip(list(self.layers)[1:], weights[:-1], strict=True):
            values = layer(torch.bmm(mixture, values).relu_())
        return torch.bmm(weights[-1][:, None], values)[:, 0].relu_()

    def _base(self, observations: Tensor) -> Tensor:
        values = observations
        for number, layer in enumerate(self.base):
            values = layer(functional.relu(values) if number else values)
        return values

    def weights(self, base: Tensor, code: Tensor) -> list[Tensor]:
        """Which mixture each module reads, layer by layer (rows: the modules that read), and which the output is.

        Args:
            base: `[T, ..., D]`, what the layers before the modules say; not looked at where the task alone decides.
            code: `[T, Z]`.

        Returns:
            L tensors `[T, ..., n, n]`, the last `[T, ..., n]`; all rows sum to one. There are no axes between where the
            task alone decides.
        """
        return self.router(base if self.routing == "state" else None, code)  # Deviation 2

    def mean_weights(self, observations: Tensor, code: Tensor) -> list[Tensor]:
        """See `Backbone.mean_weights`."""
        found = self.weights(self._base(observations), code)
        return [it.mean((1, 2)) if self.routing == "state" else it for it in found]

    def prepared(self, code: Tensor, gains: Sequence[Tensor] = ()) -> Callable[[Tensor], Tensor]:
        """See `Backbone.prepared`: where the task alone decides and all rows are of one task, with merged modules."""
        if self.routing == "state" or bool((code != code[:1]).any()):
            return super().prepared(code, gains)
        weights = self.router(None, code[:1])
        matrices, biases = [], []
        for layer, mixture in zip(self.layers, weights, strict=True):
            assert isinstance(layer, ModuleLayer)
            matrix, bias = layer.merged(mixture[0].view(-1, self.modules_per_layer))
            matrices.append(matrix)
            biases.append(bias)

        def features(observations: Tensor) -> Tensor:
            values = functional.relu(self._base(observations))
            for matrix, bias in zip(matrices, biases, strict=True):
                values = functional.relu(functional.linear(values, matrix, bias))
            return values

        return features


class ModuleLayer(nn.Module):
    """n linear maps side by side. Their weights are one matrix, so that masks and balancers treat it like any other.

    Args:
        modules: n.
        inputs: I, of each map.
        outputs: H, of each map.
        common: All maps read the same input.
    """

    def __init__(self, modules: int, inputs: int, outputs: int, common: bool) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.number, self.common = modules, common
        # Deviation 1: one matrix
        self.weight = nn.Parameter(torch.empty(modules * outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(modules * outputs).uniform_(-bound, bound))

    def forward(self, values: Tensor) -> Tensor:
        """From `[M, I]`, or `[M, n, I]` if every map has its own input, to `[M, n, H]`."""
        if self.common:
            return functional.linear(values, self.weight, self.bias).view(values.shape[0], self.number, -1)
        weight, bias = self.weight.view(self.number, -1, self.weight.shape[1]), self.bias.view(self.number, -1)
        if len(values) <= FEW:
            return torch.baddbmm(bias[..., None], weight, values.permute(1, 2, 0)).permute(2, 0, 1)
        return torch.baddbmm(bias[:, None], values.transpose(0, 1), weight.transpose(1, 2)).transpose(0, 1)

    def map_of(self, module: int) -> tuple[Tensor, Tensor]:
        """One of the maps: matrix `[H, I]`, bias `[H]`."""
        return self.weight.chunk(self.number)[module], self.bias.chunk(self.number)[module]

    def merged(self, mixture: Tensor) -> tuple[Tensor, Tensor]:
        """These maps and a mixture `[m, n]` of their outputs as one linear map: matrix `[m * H, I or n * I]`, bias."""
        weight = self.weight.view(self.number, -1, self.weight.shape[1])
        bias = (mixture @ self.bias.view(self.number, -1)).flatten()
        if self.common:
            return torch.einsum("mn,nhi->mhi", mixture, weight).flatten(0, 1), bias
        return torch.einsum("mn,nhi->mhni", mixture, weight).flatten(2).flatten(0, 1), bias


class SoftRouter(nn.Module):
    """Weights of mixtures for a cascade of layers, each from the task, from what is observed, and from those before.

    Args:
        code: Z; 0 if there is no code.
        inputs: D, size of what is observed.
        gating: Sizes of the hidden layers.
        shapes: Of the weights of each layer of the cascade; along the last axis they sum to one.
    """

    def __init__(self, code: int, inputs: int, gating: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes, sizes = tuple(shapes), [math.prod(shape) for shape in shapes]
        self.embed = nn.Linear(code, inputs) if code else None
        self.gates = nn.ModuleList([nn.Linear(before, after) for before, after in pairwise((inputs, *gating))])
        self.out = nn.ModuleList([nn.Linear(gating[-1], size) for size in sizes])
        before = [sum(sizes[:number]) for number in range(1, len(sizes))]
        self.mix = nn.ModuleList([nn.Linear(size, gating[-1]) for size in before])

    def forward(self, observed: Tensor | None, code: Tensor) -> list[Tensor]:
        """The weights of each layer, `[T, ..., *shape]`.

        Args:
            observed: `[T, ..., D]`, or None if the task alone decides.
            code: `[T, Z]`.
        """
        values = observed
        if self.embed is not None:
            task = self.embed(code)
            values = task if observed is None else observed * over_inner_axes(task, observed)
        assert values is not None
        for gate in self.gates:
            values = gate(functional.relu(values))
        found: list[Tensor] = []
        for number, out in enumerate(self.out):
            hidden = values
            if number:
                hidden = self.mix[number - 1](torch.cat([it.flatten(values.ndim - 1) for it in found], -1)) * values
            logits = out(functional.relu(hidden))
            found.append(logits.view(*logits.shape[:-1], *self.shapes[number]).softmax(-1))
        return found


def _check(
    modules: int, layers: int, width: int, base: Sequence[int], gating: Sequence[int], routing: str, code: int
) -> None:
    checks.at_least(1, modules=modules, layers=layers, width=width)
    check_sizes("base", base)
    check_sizes("gating", gating)
    checks.one_of("routing", routing, Routing)
    if routing == "task" and not code:
        raise InputError("routing=task needs a vector for each task; found none. Use task_identity onehot or embed.")
