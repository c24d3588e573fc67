"""Running statistics over episodes."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mtorl.schema import Document

QUANTILES: tuple[float, ...] = tuple(round(0.05 * step, 2) for step in range(21))
"""The quantiles of episode returns that a data set stores for every task."""


class RunningMoments:
    """Mean and standard deviation per dimension, merged chunk by chunk (Chan et al., 1983), in float64.

    Args:
        dimension: Number of columns of the rows that will be added.
    """

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.mean = np.zeros(dimension)
        self._squares = np.zeros(dimension)

    def add(self, rows: NDArray[np.floating]) -> None:
        """Adds rows `[n, dimension]`."""
        rows = np.asarray(rows, dtype=np.float64)
        if len(rows):
            mean = rows.mean(0)
            self.merge(len(rows), mean, ((rows - mean) ** 2).sum(0))

    def merge(self, count: int, mean: NDArray[np.float64], squares: NDArray[np.float64]) -> None:
        """Adds another set of rows, given its size, mean `[d]` and sum of squared deviations `[d]`."""
        total = self.count + count
        if not total:
            return
        difference = mean - self.mean
        self.mean = self.mean + difference * (count / total)
        self._squares = self._squares + squares + difference**2 * (self.count * count / total)
        self.count = total

    @property
    def std(self) -> NDArray[np.float64]:
        """Population standard deviation `[dimension]`; zero where nothing was added."""
        return np.sqrt(self._squares / max(self.count, 1))


def pooled_moments(
    counts: Sequence[int],
    means: NDArray[np.float64],
    stds: NDArray[np.float64],
    sizes: Sequence[int] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of the union of groups of rows.

    Args:
        counts: `[groups]`, rows in each group.
        means: `[groups, dimension]`.
        stds: `[groups, dimension]`, population standard deviations.
        sizes: `[groups]`, how many dimensions each group has, from the first; None: all have all.

    Returns:
        Mean and standard deviation `[dimension]`, of each dimension over the groups that have it; zero if none has.
    """
    if sizes is not None:
        return _pooled_by_size(counts, means, stds, np.array(sizes))
    pooled = RunningMoments(means.shape[1])
    for count, mean, std in zip(counts, means, stds, strict=True):
        pooled.merge(count, mean, std**2 * count)
    return pooled.mean, pooled.std


def _pooled_by_size(
    counts: Sequence[int], means: NDArray[np.float64], stds: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    parts = []
    for low, high in pairwise([0, *sorted({*sizes.tolist(), means.shape[1]})]):  # the same groups have all of these
        groups, columns = np.flatnonzero(sizes >= high).tolist(), slice(low, high)
        parts.append(pooled_moments([counts[it] for it in groups], means[groups, columns], stds[groups, columns]))
    mean, std = (np.concatenate(values) for values in zip(*parts, strict=True))
    return mean, std


def returns_to_go(rewards: NDArray[np.floating]) -> NDArray[np.float32]:
    """Undiscounted sum of this and all later rewards of one episode.

    Args:
        rewards: `[L]`.

    Returns:
        `[L]`, accumulated in float64; infinite where a sum exceeds single precision.
    """
    with np.errstate(over="ignore"):
        return np.cumsum(rewards[::-1], dtype=np.float64)[::-1].astype(np.float32)


class TaskTally:
    """Statistics of one task's episodes, as a data set's manifest states them.

    Args:
        observation_dim: O.
    """

    def __init__(self, observation_dim: int) -> None:
        self.moments = RunningMoments(observation_dim)
        self.returns: list[float] = []
        self.any_success = self.last_success = 0

    def add(
        self, observations: NDArray[np.floating], rewards: NDArray[np.floating], success: NDArray[np.bool_]
    ) -> None:
        """Adds one episode: observations `[L+1, O]`, rewards and success `[L]`."""
        self.moments.add(observations[:-1])  # the states in which an action was taken
        self.returns.append(float(rewards.sum(dtype=np.float64)))
        self.any_success += bool(success.any())
        self.last_success += bool(success[-1])

    def summary(self) -> Document:
        """The statistics as plain values, by the manifest's names."""
        returns = np.array(self.returns or [0.0])
        return {
            "episodes": len(self.returns),
            "steps": self.moments.count,
            "return_mean": float(returns.mean()),
            "return_quantiles": np.quantile(returns, QUANTILES).tolist(),
            "success_rate": self.any_success / max(len(self.returns), 1),
            "success_last_rate": self.last_success / max(len(self.returns), 1),
            "observation_mean": self.moments.mean.tolist(),
            "observation_std": self.moments.std.tolist(),
        }
