"""Soft-modularized networks against a loop over modules with the same weights, on one thread.

    python benchmarks/soft_modules.py        # two minutes

Forward and backward pass of the whole network, and of the modules alone (without the layers before them and the routing
network, which are the same for both), for the published sizes; and acting where the task alone decides, with merged
modules against the network as it is trained.
"""

import statistics
import time
from collections.abc import Callable

import torch
from common import save
from torch import Tensor, nn
from torch.nn import functional

from mtorl.agents.networks.soft_modules import SoftModularMLP

TASKS, OBSERVATIONS = 10, 39
SIZES = {"2x2x256": (2, 2, 256), "4x4x128": (4, 4, 128)}
BATCHES = (10, 1280, 6400)
ROUNDS = 9


class Loop(nn.Module):
    """The same network with a Linear layer for each module.

    Args:
        net: Whose weights to take.
    """

    def __init__(self, net: SoftModularMLP) -> None:
        super().__init__()
        self.net = net
        self.modules_of = nn.ModuleList()
        for layer in net.layers:
            inner = nn.ModuleList()
            for weight, bias in zip(
                layer.weight.chunk(net.modules_per_layer), layer.bias.chunk(net.modules_per_layer), strict=True
            ):
                linear = nn.Linear(weight.shape[1], weight.shape[0])
                linear.weight.data, linear.bias.data = weight.data.clone(), bias.data.clone()
                inner.append(linear)
            self.modules_of.append(inner)

    def forward(self, observations: Tensor, code: Tensor) -> Tensor:
        """Each module in turn reads its mixture."""
        base = self.net._base(observations)
        return self.mix(base, self.net.weights(base, code))

    def mix(self, base: Tensor, weights: list[Tensor]) -> Tensor:
        """The modules alone."""
        values = functional.relu(base)
        outputs = [module(values) for module in self.modules_of[0]]
        for number, layer in enumerate(self.modules_of):
            if number:
                mixture = weights[number - 1]
                outputs = [
                    module(functional.relu(sum(mixture[..., row, it, None] * one for it, one in enumerate(outputs))))
                    for row, module in enumerate(layer)
                ]
        return functional.relu(sum(weights[-1][..., it, None] * one for it, one in enumerate(outputs)))


def race(ways: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(repeats):
                way()
            found[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(values) for name, values in found.items()}


def training(modules: int, layers: int, width: int, batch: int) -> dict[str, float]:
    """Forward and backward pass of a batch of ten tasks."""
    torch.manual_seed(0)
    net = SoftModularMLP(OBSERVATIONS, TASKS, modules, layers, width)
    loop = Loop(net)
    observations, code = torch.randn(TASKS, batch // TASKS, OBSERVATIONS), torch.eye(TASKS)
    difference = float((net(observations, code) - loop(observations, code)).abs().max().detach())
    assert difference < 1e-6, difference
    base = net._base(observations).detach().flatten(0, -2).requires_grad_()
    weights = [it.detach().flatten(0, 1).requires_grad_() for it in net.weights(net._base(observations), code)]
    repeats = 20 if batch < 100 else 2
    seconds = race(
        {
            "ours": lambda: net(observations, code).sum().backward(),
            "loop": lambda: loop(observations, code).sum().backward(),
            "our modules": lambda: net.mix(base, weights).sum().backward(),
            "modules of the loop": lambda: loop.mix(base, weights).sum().backward(),
        },
        repeats,
    )
    return {
        "modules_alone_loop_over_ours": round(seconds["modules of the loop"] / seconds["our modules"], 2),
        "ours_ms": round(1000 * seconds["ours"], 2),
        "loop_ms": round(1000 * seconds["loop"], 2),
        "loop_over_ours": round(seconds["loop"] / seconds["ours"], 2),
        "largest_difference": difference,
    }


@torch.no_grad()
def acting(modules: int, layers: int, width: int) -> dict[str, float]:
    """A step of ten episodes of one task."""
    torch.manual_seed(0)
    net = SoftModularMLP(OBSERVATIONS, TASKS, modules, layers, width, routing="task")
    observations, code = torch.randn(10, OBSERVATIONS), torch.eye(TASKS)[:1].expand(10, -1)
    merged = net.prepared(code)
    seconds = race({"merged": lambda: merged(observations), "as trained": lambda: net(observations, code)}, 200)
    return {
        "merged_ms": round(1000 * seconds["merged"], 3),
        "as_trained_ms": round(1000 * seconds["as trained"], 3),
        "as_trained_over_merged": round(seconds["as trained"] / seconds["merged"], 2),
    }


def main() -> None:
    """Measures all sizes and writes results/soft_modules.json."""
    torch.set_num_threads(1)
    save(
        "soft_modules",
        {
            "goals": {"loop_over_ours, 4x4x128, batch 1280": 1.3, "loop_over_ours, batch 10": 0.95},
            "training": {
                name: {str(batch): training(*size, batch) for batch in BATCHES} for name, size in SIZES.items()
            },
            "acting": {name: acting(*size) for name, size in SIZES.items()},
        },
    )


if __name__ == "__main__":
    main()
