"""From how close tasks are to groups of tasks that are close to each other."""

import importlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl.datasets.grouping import Grouping
from mtorl.trainers.groupers.base import numbered

Affinity = NDArray[np.float64]
"""`[T, T]`, symmetric."""
RESTARTS = 20
"""Of k-means."""
SOLVER_STEPS = 200
"""Of the semidefinite program, at most."""


def grouping(affinity: Affinity, names: tuple[str, ...], groups: int, seed: int, method: str) -> Grouping:
    """The tasks in groups that are dense in affinity.

    The semidefinite relaxation is solved where cvxpy is installed (extra `sdp`); spectral clustering takes its place
    where it is not. Then single tasks move while that makes groups denser.

    Args:
        affinity: `[T, T]`, symmetric.
        names: Of the T tasks.
        groups: How many.
        seed: Of k-means.
        method: Who found the affinity.
    """
    labels, how = [0] * len(names), "all tasks"
    if groups == len(names):
        labels, how = list(range(groups)), "single tasks"
    elif groups > 1:
        relaxed = semidefinite(affinity, groups, SOLVER_STEPS)
        how = "spectral clustering" if relaxed is None else "semidefinite program"
        points = _spectral_points(affinity, groups) if relaxed is None else relaxed
        labels = local_search(affinity, _near(points, affinity, groups, seed), groups)
    return Grouping(
        names,
        numbered(labels),
        tuple(tuple(row) for row in affinity.tolist()),
        _contrast(affinity, labels),
        f"{method}; groups by {how}; score is the mean affinity within groups less that between them",
    )


def membership(labels: Sequence[int]) -> Affinity:
    """`[T, T]`: one over the size of their group for two tasks of one group, zero for others."""
    same = np.equal.outer(labels, labels)
    return same / same.sum(1)


def density(affinity: Affinity, labels: Sequence[int]) -> float:
    """The sum over groups of the affinity of all pairs within, divided by the group's size."""
    return float((affinity * membership(labels)).sum())


def semidefinite(affinity: Affinity, groups: int, steps: int = 200) -> Affinity | None:
    """The matrix that maximises the density among those like `membership` but for its entries' values.

    Positive semidefinite, no entry negative, rows that sum to one, trace the number of groups.

    Args:
        affinity: `[T, T]`, symmetric.
        groups: How many.
        steps: Of the solver, at most.

    Returns:
        None without cvxpy; and, with a warning, where the solver does not converge.

    Source: Li et al., Scalable Fine-tuning from Multiple Data Sources: A First-Order Approximation Approach (Grad-TAG),
    2024, section 3.
    """
    try:
        cvxpy: Any = importlib.import_module("cvxpy")
    except ImportError:
        return None
    size, spread = len(affinity), max(float(np.ptp(affinity)), 1e-300)
    relaxed = cvxpy.Variable((size, size), PSD=True)
    conditions = [relaxed >= 0, cvxpy.sum(relaxed, axis=1) == 1, cvxpy.trace(relaxed) == groups]
    scaled = (affinity - affinity.min()) / spread
    problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.sum(cvxpy.multiply(scaled, relaxed))), conditions)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a solution that may be inaccurate: the status says so
            problem.solve(solver="CLARABEL", max_iter=steps)
        status = problem.status
    except cvxpy.error.SolverError as error:
        status = str(error).split(".")[0]
    if status != "optimal" or relaxed.value is None:
        warnings.warn(
            f"the semidefinite program of {size} tasks in {groups} groups did not converge ({status}); spectral "
            "clustering takes its place.",
            stacklevel=2,
        )
        return None
    return np.asarray(relaxed.value)


def _spectral_points(affinity: Affinity, groups: int) -> Affinity:
    """A point for each task, `[T, groups]`: its rows in the first eigenvectors of the normalised affinity.

    Source: Ng, Jordan and Weiss, On Spectral Clustering: Analysis and an algorithm, 2001.
    """
    weights = (affinity - affinity.min()) / max(float(np.ptp(affinity)), 1e-300) + 1e-9
    np.fill_diagonal(weights, 0)
    scale = 1 / np.sqrt(np.maximum(weights.sum(1), 1e-300))
    vectors = np.linalg.eigh(weights * np.outer(scale, scale))[1][:, -groups:]
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)


def _near(points: Affinity, affinity: Affinity, groups: int, seed: int) -> list[int]:
    """Labels of points that lie together; no group is empty."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer different points than groups
        labels = KMeans(groups, n_init=RESTARTS, random_state=seed).fit_predict(points)
    return without_gaps(labels, affinity @ np.equal.outer(labels, np.arange(groups)))


def without_gaps(labels: NDArray[Any], fit: NDArray[np.float64]) -> list[int]:
    """The same labels, but that every empty group takes the task that loses least.

    Args:
        labels: `[T]`, each below the number of groups.
        fit: `[T, groups]`, how well tasks fit into groups.
    """
    labels, tasks = np.array(labels), np.arange(len(labels))
    for group in range(fit.shape[1]):
        if (labels == group).any():
            continue
        loss = fit[tasks, labels] - fit[:, group]
        loss[np.bincount(labels, minlength=fit.shape[1])[labels] < 2] = np.inf
        labels[int(loss.argmin())] = group
    return [int(label) for label in labels]


def local_search(affinity: Affinity, labels: Sequence[int], groups: int) -> list[int]:
    """Moves the task whose move raises the density most, until none does. No group becomes empty."""
    found, tasks = np.array(labels), np.arange(len(labels))
    own = np.diag(affinity)
    while True:
        inside = np.equal.outer(found, np.arange(groups)).astype(float)
        sizes, ties = inside.sum(0), affinity @ inside
        sums = (inside * ties).sum(0)
        left, from_size, from_sum = ties[tasks, found], sizes[found], sums[found]
        without = (from_sum - 2 * left + own) / np.maximum(from_size - 1, 1) - from_sum / from_size
        joined = (sums + 2 * ties + own[:, None]) / (sizes + 1) - sums / np.maximum(sizes, 1)
        gain = without[:, None] + joined
        gain[from_size < 2] = -np.inf
        gain[tasks, found] = -np.inf
        task, group = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[task, group] <= 1e-9:
            return [int(label) for label in found]
        found[task] = group


def _contrast(affinity: Affinity, labels: Sequence[int]) -> float:
    """The mean affinity of two different tasks within groups, less that between groups; 0 where there are no such."""
    same, other = np.equal.outer(labels, labels), ~np.eye(len(labels), dtype=bool)
    within, between = affinity[same & other], affinity[~same]
    return float(within.mean() - between.mean()) if len(within) and len(between) else 0.0
