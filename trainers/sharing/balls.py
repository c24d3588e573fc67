"""Points that stay within a distance of a centre which they choose together: arithmetic on their inner products.

Centres are affine combinations of the T points, so that every distance follows from the inner products `[T, T]`: what
is done here costs the same however many numbers a point has. All arrays have the problems (tensors of a network) as
their first axis N; infinite radii leave points where they are.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ITERATIONS = 200
PRECISION = 1e-10
"""A move of a centre by less than this share of the points' spread ends the search for it."""


def distances(gramian: Array, shares: Array) -> Array:
    """Distances `[N, T]` of points from the centre that is their combination with these shares.

    Args:
        gramian: Inner products `[N, T, T]`.
        shares: `[N, T]`, each row sums to one.
    """
    products = np.einsum("nij,nj->ni", gramian, shares)
    squares = np.diagonal(gramian, axis1=1, axis2=2) - 2 * products + np.einsum("ni,ni->n", shares, products)[:, None]
    return np.sqrt(np.maximum(squares, 0))


def best_centre(gramian: Array, radii: Array) -> Array:
    """Shares `[N, T]` of the centre from whose ball the points have the least to go, in squares.

    `sum_t max(0, ||z_t - c|| - radius)^2` is convex in c. A step goes to the mean of the points' projections on their
    own balls, of those outside only; where that overshoots, the mean of all, which never does.

    Args:
        gramian: Inner products `[N, T, T]`.
        radii: `[N]`.
    """
    tasks = gramian.shape[1]
    shares = np.full(gramian.shape[:2], 1 / tasks)
    away = distances(gramian, shares)
    spread = away.max(1)
    beyond = np.maximum(away - radii[:, None], 0)
    for _ in range(ITERATIONS):
        pull = np.divide(beyond, away, out=np.zeros_like(away), where=away > 0)
        outside = np.maximum((beyond > 0).sum(1), 1)
        step = pull - pull.sum(1, keepdims=True) * shares
        tried = shares + step / outside[:, None]
        worse = np.square(np.maximum(distances(gramian, tried) - radii[:, None], 0)).sum(1) > np.square(beyond).sum(1)
        shares, before = np.where(worse[:, None], shares + step / tasks, tried), shares
        away = distances(gramian, shares)
        beyond = np.maximum(away - radii[:, None], 0)
        moved = shares - before
        length = np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", moved, gramian, moved), 0))
        if (length <= PRECISION * spread).all():
            break
    return shares


def within(away: Array, radii: Array) -> Array:
    """By which factors `[N, T]` the ways of points from their centre are to be shortened, to end in the ball."""
    outside = away > radii[:, None]
    return np.where(outside, radii[:, None] / np.where(outside, away, 1.0), 1.0)


def weighted_centre(multipliers: Array) -> Array:
    """Shares `[N, T]` of the centre that makes the Lagrangian least; the mean where no constraint binds.

    Args:
        multipliers: `[N, T]`, none negative.
    """
    weights = multipliers / (1 + multipliers)
    total = weights.sum(1, keepdims=True)
    return np.where(total > 0, weights / np.where(total > 0, total, 1.0), 1 / weights.shape[1])
