"""Small convex problems of T variables, solved to the last digits that their Gramian has. All in float64.

Task gradients that are (nearly) multiples of each other make a Gramian singular up to rounding, and a solver that takes
rounding for a direction answers with weights of any size. What counts as a direction is therefore decided by the
accuracy of the Gramian (`spectrum`), and answers are checked: a projection is never longer than what it projects.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mtorl.trainers.gradients import ACCURACY

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def spectrum(gramian: Matrix) -> tuple[Vector, Matrix]:
    """Eigenvalues, ascending, and eigenvectors of a Gramian, without those that may be rounding.

    An inner product is exact to `ACCURACY` of the two norms. Such errors, alike and independent, move the eigenvalue of
    a vector v by about that times `sum (v_t norm_t)^2`, and the largest of T by `2 sqrt(T)` as much (Wigner, 1958): a
    task with a small gradient of its own is kept, a difference of two large ones that are the same is not.

    Args:
        gramian: `[T, T]`.

    Returns:
        `[r]` and `[T, r]`.
    """
    eigenvalues, vectors = np.linalg.eigh(gramian)
    rounding = len(gramian) * np.finfo(np.float64).eps * eigenvalues.max(initial=0.0)
    keep = eigenvalues > noise(len(gramian)) * (np.diag(gramian) @ vectors**2) + rounding
    return eigenvalues[keep], vectors[:, keep]


def noise(size: int) -> float:
    """Below this an eigenvalue of the Gramian of so many unit gradients may be rounding."""
    return 2 * math.sqrt(size) * ACCURACY


def in_dual_cone(gramian: Matrix, weights: Matrix) -> Matrix:
    """Weights of the directions closest to given ones whose product with no gradient is negative.

    Least squares with nonnegative coefficients of the unit gradients, in the coordinates of their significant
    directions. A projection is no longer than what it projects, and its length is known only if its coefficients are
    not too large: where the answer is not so, a ridge makes it so.

    Args:
        gramian: `[T, T]`, no row zero.
        weights: `[B, T]`, of the given directions.

    Returns:
        `[B, T]`.
    """
    norms = np.sqrt(np.diag(gramian))
    cosines = gramian / np.outer(norms, norms)
    eigenvalues, vectors = spectrum(cosines)
    factor = np.sqrt(eigenvalues)[:, None] * vectors.T  # columns: the unit gradients
    return np.stack([_projection(factor, cosines, row) for row in weights * norms]) / norms


def _projection(factor: Matrix, cosines: Matrix, before: Vector) -> Vector:
    """One direction of `in_dual_cone`, in weights of the unit gradients."""
    from scipy.optimize import nnls  # imported here: it takes a fifth of a second

    size, target = len(before), -factor @ before
    longest = (1 + 1e-9) * norm(cosines, before) + 1e-12 * float(np.linalg.norm(before))
    after = before + nnls(factor, target, maxiter=50 * size)[0]
    ridge = noise(size)
    while norm(cosines, after) > longest or noise(size) * (after @ after) > before @ before:
        padded = np.concatenate([factor, math.sqrt(ridge) * np.eye(size)])
        after = before + nnls(padded, np.concatenate([target, np.zeros(size)]), maxiter=50 * size)[0]
        ridge *= 10
    return after


def nonnegative_qp(matrix: Matrix, linear: Matrix) -> Matrix:
    """Minimises `x M x / 2 + c x` over `x >= 0`, for many c, by the active set method of Lawson and Hanson (1974).

    Args:
        matrix: M `[T, T]`, symmetric positive semidefinite.
        linear: c `[B, T]`, each in the range of M.

    Returns:
        `[B, T]`.
    """
    from scipy.optimize import nnls  # imported here: it takes a fifth of a second

    eigenvalues, vectors = np.linalg.eigh(matrix)
    keep = eigenvalues > 1e-14 * len(matrix) * eigenvalues.max(initial=0.0)  # no more: weights on a simplex stay small
    if not keep.any():
        return np.zeros_like(linear)
    roots = np.sqrt(eigenvalues[keep])
    factor = roots[:, None] * vectors[:, keep].T  # M = factor^T factor
    targets = -(linear @ vectors[:, keep]) / roots
    return np.stack([nnls(factor, target, maxiter=50 * len(matrix))[0] for target in targets])


def min_norm_weights(gramian: Matrix) -> Vector:
    """Weights on the simplex whose combination of the rows has the smallest norm.

    The nonnegative minimiser of `x M x + (1 - sum x)^2` points to it (Lawson and Hanson, 1974, chapter 23).

    Args:
        gramian: `[T, T]`.
    """
    size = len(gramian)
    scaled = gramian * (size / np.trace(gramian))
    x = nonnegative_qp(scaled + 1.0, -np.ones((1, size)))[0]
    return x / x.sum()


def onto_simplex(values: Vector) -> Vector:
    """The closest nonnegative numbers with a sum of one (Held, Wolfe and Crowder, 1974)."""
    descending = np.sort(values)[::-1]
    excess = (np.cumsum(descending) - 1) / np.arange(1, len(values) + 1)
    return np.maximum(values - excess[descending > excess][-1], 0.0)


def norm(gramian: Matrix, weights: Vector) -> float:
    """Length of the weighted sum of the rows."""
    return math.sqrt(max(float(weights @ gramian @ weights), 0.0))


def pseudo_solve(gramian: Matrix, values: Vector) -> Vector:
    """The shortest least-squares solution of `gramian x = values` in the significant directions."""
    eigenvalues, vectors = spectrum(gramian)
    return vectors @ ((vectors.T @ values) / eigenvalues)


def damped_newton(gramian: Matrix, exponent: float) -> Vector:
    """Solves `M w = w ** -exponent` for `w > 0`.

    Without a solution (gradients that cancel out) the weights grow without end; a ridge of the size of the Gramian's
    own errors then holds them.

    Args:
        gramian: M `[T, T]`, without zero rows.
        exponent: Positive.
    """
    size = len(gramian)
    units = 1 / np.sqrt(np.diag(gramian))  # in these units all rows have norm one
    cosines = gramian * np.outer(units, units)
    # M w = w^-a with w = units * v:  (units M units) v = units^(1 - a) v^-a
    factor = units ** (1 - exponent)
    ridges = (1e-12, noise(size))
    for ridge in ridges:
        regular = cosines + ridge * np.eye(size)
        if ridge == ridges[-1] or np.linalg.eigvalsh(regular)[0] > 0:
            v = _newton(regular, factor, exponent)
            if noise(size) * (v @ v) < v @ cosines @ v:
                break
    return units * v


def _newton(scaled: Matrix, factor: Vector, exponent: float, iterations: int = 300) -> Vector:
    """Solves `M v = factor * v ** -exponent` for `v > 0`.

    The minimiser of `v M v / 2 - sum factor f(v)` with `f' = v ** -exponent`: strictly convex, so damped Newton steps
    that stay positive find it from anywhere.
    """
    v = np.full(len(scaled), float(np.mean(factor)) ** (1 / (1 + exponent)))
    for _ in range(iterations):
        push = factor * v**-exponent
        slope = scaled @ v - push
        step = np.linalg.solve(scaled + np.diag(exponent * push / v), -slope)
        shrink = float(np.max(-step / v, initial=0.0))
        length = min(1.0, 0.9 / shrink) if shrink > 0.9 else 1.0
        value = _potential(scaled, factor, exponent, v)
        enough = 1e-4 * float(-slope @ step)
        while length > 1e-10:
            now = _potential(scaled, factor, exponent, v + length * step)
            if now <= value - length * enough + 1e-14 * abs(value):
                break
            length /= 2
        v = v + length * step
        if np.max(np.abs(step) / v) < 1e-12:
            break
    return v


def _potential(matrix: Matrix, factor: Vector, exponent: float, v: Vector) -> float:
    inner = np.log(v) if exponent == 1 else v ** (1 - exponent) / (1 - exponent)
    return float(v @ matrix @ v / 2 - factor @ inner)
