"""The gradients of all tasks of one batch."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class TaskGradients:
    """One gradient per task, at the parameters that the task computes with and pulled back to the shared ones.

    The matrices live in buffers that the next batch overwrites: clone what is to be kept.

    Attributes:
        losses: `[T]`, detached.
        dense: `[T, P]`, gradient of each loss at its own effective parameters. Where a mask is off it says what the
            weight would do there: for strategies that revive weights.
        pulled_back: `[T, P]`, gradient of each loss with respect to the shared parameters: for balancers. The same
            tensor as `dense` where all tasks share everything.
        task_ids: `[T]`.
    """

    losses: Tensor
    dense: Tensor
    pulled_back: Tensor
    task_ids: Tensor

    @cached_property
    def gramian(self) -> Tensor:
        """Inner products `[T, T]` of the pulled-back rows, float64 on the CPU: solvers are small and need the digits.

        It is symmetric to the last bit.
        """
        return gramian(self.pulled_back)


BLOCK = 1 << 15
"""Columns that are converted to float64 at a time."""


def gramian(rows: Tensor) -> Tensor:
    """Inner products `[T, T]` of rows `[T, P]`, float64 on the CPU, symmetric to the last bit.

    They are accumulated in float64: sums of millions of single precision products are wrong in the fourth digit, which
    methods that look at small differences between tasks turn into wrong directions.
    """
    products = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.split(BLOCK, 1):
        wide = part.double()
        products.addmm_(wide, wide.T)
    return (products + products.T).cpu() / 2
