"""How much of every task's windows comes from each of several data sets."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError


def check_shares(shares: Sequence[float] | None, count: int) -> None:
    """Raises InputError unless there is one positive share for each of so many data sets; None: no shares."""
    if shares is None:
        return
    if len(shares) != count:
        raise InputError(f"shares are {list(shares)}; expected {count}, one for each data set. Add or remove some.")
    if not all(share > 0 and math.isfinite(share) for share in shares):
        raise InputError(f"shares are {list(shares)}; expected positive numbers. Leave a data set out for none of it.")


class SourceShares:
    """Maps uniform draws to steps, or episodes, of a task, which stand on a line: those of the first data set first.

    Without shares all of a task's are as likely. With shares the draws below the first share fall evenly on those of
    the first data set, and so on; shares of data sets without the task go to the others in proportion.

    Args:
        sizes: `[T, S]`, how many each of S data sets has of each task.
        shares: `[S]`, relative to each other; None: as the sizes are.
    """

    def __init__(self, sizes: NDArray[np.int64], shares: Sequence[float] | None) -> None:
        self._sizes, self._shared = sizes, shares is not None
        self._ends = np.cumsum(sizes, 1)
        present = sizes > 0
        weights = present * np.array([1.0] * sizes.shape[1] if shares is None else shares)
        self._weights = weights / weights.sum(1, keepdims=True)
        last = sizes.shape[1] - 1 - present[:, ::-1].argmax(1)
        bounds = np.cumsum(self._weights, 1)
        self._bounds = np.where(np.arange(sizes.shape[1]) >= last[:, None], 1.0, bounds)  # rounding leaves 1 - 1e-16

    def places(self, tasks: NDArray[np.int64], draws: NDArray[np.float64]) -> NDArray[np.int64]:
        """Places on the lines of these tasks.

        Args:
            tasks: `[n]`.
            draws: `[n, B]`, uniform in [0, 1).

        Returns:
            `[n, B]`, from 0.
        """
        if not self._shared:
            return (draws * self._ends[tasks, -1:]).astype(np.int64)
        source = (draws[:, :, None] >= self._bounds[tasks, None, :]).sum(2)
        row = tasks[:, None]
        start = self._bounds[row, source] - self._weights[row, source]
        within = (draws - start) / self._weights[row, source] * self._sizes[row, source]
        most = self._sizes[row, source] - 1
        return self._ends[row, source] - 1 - most + np.clip(within.astype(np.int64), 0, most)
