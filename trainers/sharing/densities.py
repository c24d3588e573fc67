"""How many weights each matrix keeps, so that all together keep a given share."""

import math
from typing import Literal

import torch

Distribution = Literal["erk", "uniform"]


def densities(shapes: list[torch.Size], density: float, distribution: Distribution) -> list[float]:
    """Density of each matrix.

    Args:
        shapes: Of the matrices.
        density: Share of all their entries that is to be kept, in (0, 1].
        distribution: See `TaskMasks`.
    """
    return erk_densities(shapes, density) if distribution == "erk" else [density] * len(shapes)


def erk_densities(shapes: list[torch.Size], density: float) -> list[float]:
    """Density of each tensor by the Erdos-Renyi kernel, so that all together have the given density.

    A tensor's density is proportional to the sum of its sides over their product, and at most 1.

    Source: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse connectivity, 2018.
    """
    sizes, sides = [math.prod(shape) for shape in shapes], [sum(shape) for shape in shapes]
    full: set[int] = set()
    while True:  # what full tensors cannot take is spread over the rest, which may fill up in turn
        left = density * sum(sizes) - sum(sizes[place] for place in full)
        partial = [place for place in range(len(shapes)) if place not in full]
        factor = left / sum(sides[place] for place in partial) if partial else 0.0
        beyond = {place for place in partial if factor * sides[place] > sizes[place]}
        if not beyond:
            return [1.0 if place in full else factor * sides[place] / sizes[place] for place in range(len(shapes))]
        full |= beyond
