"""The gradients of all tasks of one batch."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class TaskGradients:
    """The gradient of every task's loss with respect to the shared parameters: for balancers.

    The matrix lives in a buffer that the next batch overwrites: clone what is to be kept.

    Attributes:
        losses: `[T]`, detached.
        pulled_back: `[T, P]`.
        task_ids: `[T]`.
    """

    losses: Tensor
    pulled_back: Tensor
    task_ids: Tensor

    @cached_property
    def gramian(self) -> Tensor:
        """Inner products `[T, T]` of the pulled-back rows, float64 on the CPU: solvers are small and need the digits.

        It is symmetric to the last bit.
        """
        return gramian(self.pulled_back)

    def combined(self, weights: Tensor) -> Tensor:
        """The direction `[P]`: the gradients weighted with `[T]`."""
        return weights.to(self.pulled_back) @ self.pulled_back

    def kept(self) -> "TaskGradients":
        """The same, which the next batch does not overwrite."""
        return replace(self, pulled_back=self.pulled_back.clone())


@dataclass(frozen=True)
class DenseGradients:
    """The gradient of every task's loss at the parameters that the task computes with: for strategies of sharing.

    Where a mask is off it says what the weight would do there. The matrix lives in the same buffer as that of
    `TaskGradients`.

    Attributes:
        losses: `[T]`, detached.
        dense: `[T, P]`.
        task_ids: `[T]`.
    """

    losses: Tensor
    dense: Tensor
    task_ids: Tensor


BLOCK = 128
"""Columns whose products are summed in the rows' own precision."""
CACHED = 1 << 15
"""Columns at a time, so that their products stay in a processor's cache; fewer of more than `USUAL` tasks."""
USUAL = 64
"""Tasks."""
FEW = 1 << 16
"""So many columns are cheap in float64."""
ACCURACY = 5e-8
"""Errors of `gramian`, in products of norms, and of the rows themselves where these are in single precision."""


def gramian(rows: Tensor) -> Tensor:
    """Inner products `[T, T]` of rows `[T, P]`, float64 on the CPU, symmetric to the last bit; see `products`."""
    found = products(rows, rows)
    return (found + found.T) / 2


def products(one: Tensor, other: Tensor) -> Tensor:
    """Inner products `[T, T]` of rows `[T, P]` with other rows `[T, P]`, float64 on the CPU.

    Products of some columns are summed in single precision, and these sums in float64: errors are about 1e-8
    of the norms (on a GPU up to `ACCURACY`), below those of the gradients themselves, at less cost than a product in
    float64. One single precision sum over millions is far less exact, which methods that look at small differences
    between tasks turn into wrong directions.
    """
    whole = one.shape[1] // BLOCK * BLOCK if one.shape[1] > FEW else 0
    rest = one[:, whole:].double()
    found = rest @ (rest if other is one else other[:, whole:].double()).T
    share = max(1.0, len(one) * len(other) / USUAL**2)  # 160 tasks: in half of the time
    at_once = whole if one.is_cuda else max(BLOCK, int(CACHED / share) // BLOCK * BLOCK)
    for start in range(0, whole, at_once or 1):
        place = slice(start, min(start + at_once, whole))
        left, right = (rows[:, place].unflatten(1, (-1, BLOCK)).transpose(0, 1) for rows in (one, other))  # views
        found += torch.bmm(left, right.mT).sum(0, dtype=torch.float64)
    return found.cpu()
