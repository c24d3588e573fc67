"""What one task of an evaluation shows."""

from typing import NamedTuple

import numpy as np

from mtorl.measures import RETURN, SCORE, SUCCESS, Measure, Scale, normalised


class TaskResult(NamedTuple):
    """Success of one task."""

    task: str
    episodes: int
    successes: int
    low: float
    """Lower end of the 95 % Wilson interval of the success rate."""
    high: float
    success_last_rate: float | None
    mean_return: float
    mean_length: float
    return_interval: tuple[float, float] | None = None
    """95 % interval of the mean return; None of a single episode."""
    returns_only: bool = False
    """Whether there is no success flag."""
    bounds: tuple[float, float] | None = None
    """Returns that count as 0 and as 100 in normalised scores."""

    @property
    def rate(self) -> float:
        """Share of episodes with success at any step."""
        return self.successes / self.episodes

    @property
    def measure(self) -> Measure:
        """What the task is judged by: success, or its return where there is no success."""
        return self.on(RETURN if self.returns_only else SUCCESS)

    @property
    def score(self) -> Measure | None:
        """Its normalised score, if there are reference returns."""
        return self.on(SCORE) if self.bounds else None

    def on(self, scale: Scale) -> Measure:
        """The task on one of the scales; a normalised score only where there are reference returns."""
        if scale is SUCCESS:
            return Measure(scale, self.rate, self.low, self.high)
        low, high = self.return_interval or (None, None)
        if scale is RETURN:
            return Measure(scale, self.mean_return, low, high)
        assert self.bounds is not None
        value, low, high = (
            None if it is None else float(normalised(np.array(it), self.bounds)) for it in (self.mean_return, low, high)
        )
        assert value is not None
        return Measure(scale, value, low, high)
