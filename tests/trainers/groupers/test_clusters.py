"""From affinities to groups."""

import importlib.util
import sys
from itertools import product
from types import ModuleType

import numpy as np
import pytest

from mtorl.trainers.groupers import clusters
from mtorl.trainers.groupers.clusters import density, grouping, local_search, membership, semidefinite, without_gaps

SOLVER = pytest.mark.skipif(importlib.util.find_spec("cvxpy") is None, reason="needs the extra sdp")
NAMES = tuple("abcdefg")


def planted(seed: int, noise: float = 0.4) -> np.ndarray:
    """Three groups of tasks in noise: 0, 3; 1, 4, 6; 2, 5."""
    labels = np.array([0, 1, 2, 0, 1, 2, 1])
    found = np.equal.outer(labels, labels) + noise * np.random.default_rng(seed).normal(size=(7, 7))
    found = (found + found.T) / 2
    np.fill_diagonal(found, found.max())
    return found


def test_the_matrix_of_groups() -> None:
    matrix = membership([0, 0, 1, 1])
    np.testing.assert_array_equal(matrix, np.kron(np.eye(2), np.full((2, 2), 0.5)))
    assert np.trace(matrix) == 2 and (matrix.sum(1) == 1).all() and np.linalg.eigvalsh(matrix).min() > -1e-12
    affinity = np.arange(16.0).reshape(4, 4)
    assert density(affinity, [0, 0, 1, 1]) == (0 + 1 + 4 + 5) / 2 + (10 + 11 + 14 + 15) / 2


@pytest.mark.parametrize("seed", range(5))
def test_planted_groups_are_found(seed: int) -> None:
    assert grouping(planted(seed, 0.2), NAMES, 3, 0, "").labels == (0, 1, 2, 0, 1, 2, 1)


@pytest.mark.parametrize("seed", range(4))
def test_local_search_ends_where_no_single_move_helps(seed: int) -> None:
    affinity = planted(seed, 1.0)
    start = np.random.default_rng(seed).permutation([0, 1, 2, 0, 1, 2, 0]).tolist()
    found = local_search(affinity, start, 3)
    assert set(found) == {0, 1, 2} and density(affinity, found) >= density(affinity, start)
    for task, group in product(range(7), range(3)):
        other = [group if place == task else label for place, label in enumerate(found)]
        assert len(set(other)) < 3 or density(affinity, other) <= density(affinity, found) + 1e-9


def test_empty_groups_take_the_task_that_minds_least() -> None:
    fit = np.array([[3.0, 0.0, 1.0], [3.0, 2.5, 0.0], [1.0, 0.0, 0.9]])
    assert without_gaps(np.array([0, 0, 0]), fit) == [0, 1, 2]
    assert without_gaps(np.array([2, 1, 0]), fit) == [2, 1, 0]


def test_tasks_that_are_all_alike_still_form_that_many_groups() -> None:
    for groups in range(1, 8):
        assert set(grouping(np.ones((7, 7)), NAMES, groups, 0, "").labels) == set(range(groups))


@SOLVER
def test_the_semidefinite_program() -> None:
    affinity = planted(0, 0.1)
    relaxed = semidefinite(affinity, 3)
    assert relaxed is not None
    assert abs(np.trace(relaxed) - 3) < 1e-5 and np.abs(relaxed.sum(1) - 1).max() < 1e-5
    assert relaxed.min() > -1e-6 and np.linalg.eigvalsh(relaxed).min() > -1e-6
    labels = [0, 1, 2, 0, 1, 2, 1]
    np.testing.assert_allclose(relaxed, membership(labels), atol=1e-3)
    assert (affinity * relaxed).sum() >= density(affinity, labels) - 1e-4, "a relaxation is no worse"
    assert "semidefinite program" in grouping(affinity, NAMES, 3, 0, "").method


@SOLVER
def test_a_program_that_does_not_converge_gives_way_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "SOLVER_STEPS", 1)
    with pytest.warns(UserWarning, match="7 tasks in 3 groups did not converge .*spectral clustering takes its place"):
        found = grouping(planted(0, 0.1), NAMES, 3, 0, "")
    assert found.labels == (0, 1, 2, 0, 1, 2, 1) and "spectral clustering" in found.method


def test_a_solver_that_gives_up_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for cvxpy, which need not be installed."""

    class SolverError(Exception):
        pass

    class Problem:
        status = None

        def __init__(self, *parts: object) -> None:
            pass

        def solve(self, **options: object) -> None:
            raise SolverError("Solver 'CLARABEL' failed. Try another")

    class Anything:
        value = None

        def __getattr__(self, name: str) -> object:
            return lambda *arguments, **options: Anything()

        def __ge__(self, other: object) -> bool:
            return True

    fake = ModuleType("cvxpy")
    fake.__dict__.update(Problem=Problem, error=type("error", (), {"SolverError": SolverError}))
    for name in ("Variable", "sum", "trace", "Maximize", "multiply"):
        setattr(fake, name, lambda *arguments, **options: Anything())
    monkeypatch.setitem(sys.modules, "cvxpy", fake)
    with pytest.warns(UserWarning, match="did not converge \\(Solver 'CLARABEL' failed\\)"):
        assert semidefinite(planted(0), 3) is None


def test_without_the_solver_groups_are_spectral(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    found = grouping(planted(1, 0.2), NAMES, 3, 0, "Someone")
    assert found.method.startswith("Someone; groups by spectral clustering") and found.score > 0.5
