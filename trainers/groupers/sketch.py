"""Random projections of gradients that are never whole."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional


class Sketch:
    """Adds up entries with random signs: entry i of a flat vector goes to coordinate i mod d.

    Inner products keep their expectations, and there is no matrix: signs are all that is stored. That d has no factor
    in common with the widths of weight matrices spreads each row and each column over all coordinates. With d = P
    nothing is added up, and inner products are exact.

    Source: Weinberger et al., Feature Hashing for Large Scale Multitask Learning, 2009, with a hash that is no draw.

    Args:
        shapes: Of the parameters, in their order.
        dimension: d, at least; with less than d entries their number.
        generator: Draws the signs.

    Attributes:
        dimension: d.
        counts: `[d]`, how many entries are added up in each coordinate.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], dimension: int, generator: torch.Generator) -> None:
        self._shapes = dict(shapes)
        total = sum(math.prod(shape) for shape in shapes.values())
        self.dimension = min(_coprime(dimension, [shape[-1] for shape in shapes.values()]), total)
        self._signs = {
            name: torch.randint(0, 2, (math.prod(shape),), dtype=torch.int8, generator=generator) * 2 - 1
            for name, shape in shapes.items()
        }
        self.counts = torch.bincount(torch.arange(total) % self.dimension, minlength=self.dimension)

    def __call__(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """Coordinates `[rows, d]` of gradients `[rows, *shape]`, by the parameters' names."""
        found, offset = torch.zeros(()), 0
        for name in self._shapes:
            values = gradients[name].flatten(1)
            signed = values * self._signs[name].to(values)
            front = offset % self.dimension
            back = -(front + signed.shape[1]) % self.dimension
            padded = functional.pad(signed, (front, back))
            found = found.to(values) + padded.unflatten(1, (-1, self.dimension)).sum(1)
            offset += signed.shape[1]
        return found


def _coprime(least: int, widths: Sequence[int]) -> int:
    """The smallest number from `least` on that has no factor in common with any of the widths."""
    number = least
    while any(math.gcd(number, width) > 1 for width in widths):
        number += 1
    return number
