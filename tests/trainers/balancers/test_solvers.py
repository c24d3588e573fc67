"""Optimality is checked by its conditions, on matrices of every rank and spectrum."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from mtorl.trainers.balancers.solvers import damped_newton, min_norm_weights, nonnegative_qp, pseudo_solve


def gramians() -> list:
    draw = np.random.default_rng(0)
    matrices = {}
    for size, rank in ((1, 1), (2, 2), (5, 3), (8, 8), (20, 20), (50, 50), (50, 16), (50, 30), (50, 500)):
        for spread in (0, 3):
            rows = draw.normal(size=(size, rank)) * 10 ** draw.uniform(-spread / 2, spread / 2, (size, 1))
            rows += 0.5 * draw.normal(size=rank)  # a common part: fewer conflicts
            matrices[f"{size}x{rank}-spread{spread}"] = rows @ rows.T
    return [pytest.param(matrix, id=name) for name, matrix in matrices.items()]


@pytest.mark.parametrize("gramian", gramians())
def test_nonnegative_qp(gramian: np.ndarray) -> None:
    size = len(gramian)
    draw = np.random.default_rng(1)
    linear = np.concatenate([gramian, gramian @ draw.normal(size=(size, 5))], 1).T  # such as the methods ask for
    x = nonnegative_qp(gramian, linear)
    slope = x @ gramian + linear
    scale = np.abs(linear).max()
    assert (x >= 0).all()
    assert slope.min() >= -1e-9 * scale, "no variable would help"
    assert np.abs(x * slope).max() <= 1e-9 * scale * max(1, np.abs(x).max()), "complementary"


def test_nonnegative_qp_against_another_solver() -> None:
    draw = np.random.default_rng(2)
    for size in (3, 10, 30):
        factor, target = draw.normal(size=(2 * size, size)), draw.normal(size=2 * size)
        expected = lsq_linear(factor, target, (0, np.inf), tol=1e-14).x
        solution = nonnegative_qp(factor.T @ factor, -(factor.T @ target)[None])[0]
        np.testing.assert_allclose(solution, expected, atol=1e-6)


@pytest.mark.parametrize("gramian", gramians())
def test_min_norm_weights(gramian: np.ndarray) -> None:
    w = min_norm_weights(gramian)
    products = gramian @ w
    square = w @ products
    scale = np.diag(gramian).max()
    assert (w >= 0).all() and w.sum() == pytest.approx(1)
    assert products.min() >= square - 1e-9 * scale, "every gradient gains at least the square of the length"
    assert np.abs(w * (products - square)).max() <= 1e-9 * scale


@pytest.mark.parametrize("exponent", [1.0, 0.5, 0.1, 2.0])
@pytest.mark.parametrize("gramian", gramians())
def test_damped_newton(gramian: np.ndarray, exponent: float) -> None:
    rank = np.linalg.matrix_rank(gramian)
    if rank < len(gramian) and min_norm_weights(gramian) @ gramian @ min_norm_weights(gramian) < 1e-9:
        w = damped_newton(gramian, exponent)
        assert np.isfinite(w).all() and (w > 0).all(), "Pareto-stationary: there is no solution, but an answer"
        return
    w = damped_newton(gramian, exponent)
    np.testing.assert_allclose((gramian @ w) * w**exponent, 1, rtol=1e-6)


def test_pseudo_solve() -> None:
    draw = np.random.default_rng(3)
    rows = draw.normal(size=(6, 3))
    gramian, values = rows @ rows.T, draw.normal(size=6)
    np.testing.assert_allclose(pseudo_solve(gramian, values), np.linalg.pinv(gramian, rcond=1e-10) @ values, atol=1e-9)
