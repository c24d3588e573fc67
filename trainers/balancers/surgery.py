"""Projections of conflicting gradients, as arithmetic on the coefficients of the task gradients."""

import numpy as np
import torch
from numpy.typing import NDArray

from mtorl.trainers.balancers.base import Matrix, Vector


def project(gramian: Matrix, partners: NDArray[np.int64], active: NDArray[np.bool_]) -> Vector:
    """Projects every task's gradient in turn onto the normal planes of its partners, where it conflicts with them.

    Row i of the coefficients says what gradient i has become; one partner of all rows is handled at a time. A
    projected gradient is compared with the original one of its partner.

    Args:
        gramian: `[T, T]`.
        partners: `[T, K]`, the tasks that each row meets, in order.
        active: bool `[T, K]`, whether the row gives way to that partner.

    Returns:
        Weights `[T]` of the sum of all projected gradients.
    """
    rows, squares = np.arange(len(gramian)), np.diag(gramian)
    coefficients, products = np.eye(len(gramian)), gramian.copy()
    for number in range(partners.shape[1]):
        partner = partners[:, number]
        product = products[rows, partner]
        amount = np.where(active[:, number] & (product < 0), product / squares[partner], 0.0)
        coefficients[rows, partner] -= amount
        products -= amount[:, None] * gramian[partner]
    return coefficients.sum(0)


def others_in_random_order(tasks: int, generator: torch.Generator) -> NDArray[np.int64]:
    """For every task all the others, each row in an order of its own: `[T, T-1]`."""
    keys = torch.rand(tasks, tasks, generator=generator, dtype=torch.float64).numpy()
    np.fill_diagonal(keys, 2.0)  # sorted to the end, and cut off
    return keys.argsort(1)[:, :-1]
