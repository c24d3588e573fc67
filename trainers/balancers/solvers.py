"""Small convex problems of T variables, solved to the last digits. All in float64."""

import math

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
SWEEPS = 4
RIDGE = 1e-13
"""Relative ridge that makes duplicate rows share their weight; below what single precision gradients can tell apart."""


def nonnegative_qp(matrix: Matrix, linear: Matrix, guess: NDArray[np.bool_] | None = None) -> Matrix:
    """Minimises `x M x / 2 + c x` over `x >= 0`, for many c at once.

    A few sweeps of coordinate descent guess which variables are zero; block principal pivoting (Kim and Park, 2011)
    then corrects the guess until the optimality conditions hold.

    Args:
        matrix: M `[T, T]`, symmetric, positive definite up to the ridge that is added here.
        linear: c `[B, T]`.
        guess: bool `[B, T]`, which variables are probably positive; worked out by default.

    Returns:
        `[B, T]`.
    """
    size = len(matrix)
    scale = np.trace(matrix) / size
    if not scale > 0:
        return np.zeros_like(linear)
    matrix, linear = matrix / scale + RIDGE * np.eye(size), linear / scale
    if guess is None:
        guess = _coordinate_descent(matrix, linear) > 0
    return _pivot(matrix, linear, guess.copy())


def _coordinate_descent(matrix: Matrix, linear: Matrix) -> Matrix:
    x, slope = np.zeros_like(linear), linear.copy()
    for _ in range(SWEEPS):
        for place, row in enumerate(matrix):
            old = x[:, place]
            new = np.maximum(old - slope[:, place] / row[place], 0)
            slope += np.outer(new - old, row)
            x[:, place] = new
    return x


def _pivot(matrix: Matrix, linear: Matrix, free: NDArray[np.bool_]) -> Matrix:
    """Exchanges infeasible variables until none is left; falls back to one at a time, which cannot cycle."""
    count, size = linear.shape
    x = np.zeros_like(linear)
    todo = np.arange(count)
    best, patience = np.full(count, size + 1), np.full(count, 3)
    tolerance = 1e-12 * max(1.0, float(np.abs(linear).max()))
    for _ in range(10 * size + 10):
        x[todo] = _solve_free(matrix, linear[todo], free[todo])
        slope = x[todo] @ matrix + linear[todo]
        wrong = np.where(free[todo], x[todo] < -tolerance, slope < -tolerance)
        number = wrong.sum(1)
        open_ = number > 0
        if not open_.any():
            break
        todo, wrong, number = todo[open_], wrong[open_], number[open_]
        better = number < best[todo]
        best[todo[better]] = number[better]
        patience[todo] = np.where(better, 3, patience[todo] - 1)
        single = patience[todo] < 0
        if single.any():  # Murty's rule: only the last one changes sides
            last = size - 1 - wrong[single][:, ::-1].argmax(1)
            only = np.zeros_like(wrong[single])
            only[np.arange(len(last)), last] = True
            wrong[single] = only
        free[todo] ^= wrong
    return np.maximum(x, 0)


def _solve_free(matrix: Matrix, linear: Matrix, free: NDArray[np.bool_]) -> Matrix:
    """Stationary points in the free variables, the others zero."""
    if len(linear) == 1:
        (places,) = np.nonzero(free[0])
        x = np.zeros_like(linear)
        if len(places):
            x[0, places] = np.linalg.solve(matrix[np.ix_(places, places)], -linear[0, places])
        return x
    both = free[:, :, None] & free[:, None, :]
    systems = np.where(both, matrix, np.eye(len(matrix)))
    return np.linalg.solve(systems, np.where(free, -linear, 0.0)[..., None])[..., 0]


def min_norm_weights(gramian: Matrix, guess: NDArray[np.bool_] | None = None) -> Vector:
    """Weights on the simplex whose combination of the rows has the smallest norm.

    The nonnegative minimiser of `x M x + (1 - sum x)^2` points to it (Lawson and Hanson, 1974, chapter 23).

    Args:
        gramian: `[T, T]`.
        guess: bool `[T]`, which weights are probably positive; worked out by default.
    """
    size = len(gramian)
    scaled = gramian * (size / np.trace(gramian))
    x = nonnegative_qp(scaled + 1.0, -np.ones((1, size)), None if guess is None else guess[None])[0]
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
    """Below this an eigenvalue of a Gramian counts as zero: gradients come in single precision."""
    return float(eigenvalues.max(initial=0.0)) * len(eigenvalues) * RANK_PRECISION


RANK_PRECISION = 1e-14


def damped_newton(matrix: Matrix, exponent: float, iterations: int = 100) -> Vector:
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
