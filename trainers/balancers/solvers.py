"""Small convex problems of T variables, solved to the last digits. All in float64."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


def nonnegative_qp(matrix: Matrix, linear: Matrix) -> Matrix:
    """Minimises `x M x / 2 + c x` over `x >= 0`, for many c, by the active set method of Lawson and Hanson (1974).

    Args:
        matrix: M `[T, T]`, symmetric positive semidefinite.
        linear: c `[B, T]`, each in the range of M.

    Returns:
        `[B, T]`.
    """
    eigenvalues, vectors = np.linalg.eigh(matrix)
    keep = eigenvalues > rank_tolerance(eigenvalues)
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


def norm(gramian: Matrix, weights: Vector) -> float:
    """Length of the weighted sum of the rows."""
    return math.sqrt(max(float(weights @ gramian @ weights), 0.0))


def pseudo_solve(matrix: Matrix, values: Vector) -> Vector:
    """The shortest least-squares solution of `matrix x = values`, for a symmetric positive semidefinite matrix."""
    eigenvalues, vectors = np.linalg.eigh(matrix)
    keep = eigenvalues > rank_tolerance(eigenvalues)
    return vectors[:, keep] @ ((vectors[:, keep].T @ values) / eigenvalues[keep])


def rank_tolerance(eigenvalues: Vector) -> float:
    """Below this an eigenvalue of a Gramian counts as zero."""
    return float(eigenvalues.max(initial=0.0)) * len(eigenvalues) * RANK_PRECISION


RANK_PRECISION = 1e-14


def damped_newton(matrix: Matrix, exponent: float, iterations: int = 300) -> Vector:
    """Solves `M w = w ** -exponent` for `w > 0`.

    The minimiser of `w M w / 2 - sum f(w)` with `f' = w ** -exponent`: strictly convex, so damped Newton steps that
    stay positive find it from anywhere.

    Args:
        matrix: M `[T, T]`, symmetric positive semidefinite, without zero rows.
        exponent: Positive.
        iterations: At most so many.
    """
    size = len(matrix)
    units = 1 / np.sqrt(np.diag(matrix))  # in these units all rows have norm one
    scaled = matrix * np.outer(units, units) + 1e-12 * np.eye(size)
    # M w = w^-a with w = units * v:  (units M units) v = units^(1 - a) v^-a
    factor = units ** (1 - exponent)
    v = np.full(size, float(np.mean(factor)) ** (1 / (1 + exponent)))
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
    return units * v


def _potential(matrix: Matrix, factor: Vector, exponent: float, v: Vector) -> float:
    inner = np.log(v) if exponent == 1 else v ** (1 - exponent) / (1 - exponent)
    return float(v @ matrix @ v / 2 - factor @ inner)
