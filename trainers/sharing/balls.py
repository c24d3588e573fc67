"""Points that stay within a distance of a centre which they choose together: arithmetic on their inner products.

Centres are affine combinations of the T points, so that every distance follows from the inner products `[T, T]`: what
is done here costs the same however many numbers a point has. All arrays have the problems (tensors of a network) as
their first axis N; infinite radii leave points where they are.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ITERATIONS = 100
PRECISION = 1e-8
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

    `sum_t max(0, ||z_t - c|| - radius)^2` is convex in c. Newton's steps find it; where one does not lower the sum, a
    step to the mean of the points' projections on their own balls does.

    Args:
        gramian: Inner products `[N, T, T]`.
        radii: `[N]`.
    """
    tasks = gramian.shape[1]
    shares = np.full(gramian.shape[:2], 1 / tasks)
    away = distances(gramian, shares)
    spread, cost = away.max(1), _cost(away, radii)
    for _ in range(ITERATIONS):
        pull = 1 - within(away, radii)
        newton = _newton(gramian, shares, away, pull)
        tried = shares + newton - newton.sum(1, keepdims=True) * shares
        better = _cost(distances(gramian, tried), radii) < cost
        moved = np.where(better[:, None], tried, shares + (pull - pull.sum(1, keepdims=True) * shares) / tasks) - shares
        shares = shares + moved
        away = distances(gramian, shares)
        cost = _cost(away, radii)
        length = np.sqrt(np.maximum(np.einsum("ni,nij,nj->n", moved, gramian, moved), 0))
        if (length <= PRECISION * spread).all():
            break
    return shares


def _cost(away: Array, radii: Array) -> Array:
    """Squares of the ways to the ball, summed, `[N]`."""
    beyond = np.maximum(away - radii[:, None], 0)
    found: Array = (beyond * beyond).sum(1)
    return found


def _newton(gramian: Array, shares: Array, away: Array, pull: Array) -> Array:
    """Newton's step as shares `[N, T]` of the points' ways from the centre.

    The curvature is `sum_t p_t I + (1 - p_t) u_t u_t'` over points outside, with u_t towards the point and p_t = pull.
    """
    tasks = gramian.shape[1]
    from_centre = np.eye(tasks) - shares[:, None, :]
    ways = from_centre @ gramian @ from_centre.transpose(0, 2, 1)
    outside = pull > 0
    along = np.where(outside, (1 - pull) / np.square(np.where(outside, away, 1.0)), 0.0)
    total = pull.sum(1)
    system = np.where(total > 0, total, 1.0)[:, None, None] * np.eye(tasks) + along[:, :, None] * ways
    return np.asarray(np.linalg.solve(system, pull[..., None])[..., 0], dtype=np.float64)


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
