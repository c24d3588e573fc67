"""What tasks are judged by: success, or returns where there is no success."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtorl.intervals import difference_interval
from mtorl.schema import Document


@dataclass(frozen=True)
class Scale:
    """What a number of a task means, and how it is written.

    Attributes:
        name: In tables.
        factor: By which it is multiplied to be shown.
        unit: Behind what is shown.
        axis: Beside a picture's axis.
    """

    name: str
    factor: float
    unit: str
    axis: str

    def text(self, value: float | None, digits: int = 0, space: str = "") -> str:
        """A number as it is shown; `digits` behind the point of a percentage."""
        if value is None:
            return "-"
        if self.unit:
            return f"{self.factor * value:.{digits}f}{space}{self.unit}"
        return f"{value:,.1f}" if abs(value) < 1000 else f"{value:,.0f}"


SUCCESS: Scale = Scale("success", 100, "%", "success, %")
RETURN: Scale = Scale("return", 1, "", "return")
SCORE: Scale = Scale("normalised score", 1, "", "normalised score")
SCALES: dict[str, Scale] = {scale.name: scale for scale in (SUCCESS, RETURN, SCORE)}
SCORE_NOTE = (
    "Normalised scores are 0 and 100 at the suite's reference returns. Those of D4RL were measured in another "
    "simulator: not comparable to D4RL."
)


@dataclass(frozen=True)
class Measure:
    """What one task or several are judged by.

    Attributes:
        scale: What the number means.
        value: A share, a return or a normalised score; mean of the tasks.
        low: Lower end of its 95 % interval; None if nothing is known of it (a single episode).
        high: Upper end.
        tasks: How many tasks.
    """

    scale: Scale
    value: float
    low: float | None
    high: float | None
    tasks: int = 1

    @property
    def ends(self) -> tuple[float, float]:
        """Of the interval; NaN where nothing is known of it."""
        unknown = float("nan")
        return unknown if self.low is None else self.low, unknown if self.high is None else self.high

    def text(self, digits: int = 0, space: str = "") -> str:
        """The value as it is shown."""
        return self.scale.text(self.value, digits, space)

    def interval(self, digits: int = 0, between: str = " to ", space: str = "") -> str:
        """The interval as it is shown."""
        if self.low is None or self.high is None:
            return "-"
        return between.join(self.scale.text(end, digits, space) for end in (self.low, self.high))

    def less(self, other: "Measure") -> "Measure":
        """By how much it is more than another one of the same scale, with an interval as if both were independent."""
        value = self.value - other.value
        if None in (self.low, self.high, other.low, other.high):
            return Measure(self.scale, value, None, None, self.tasks)
        ends = difference_interval((self.value, *self.ends), (other.value, *other.ends))
        return Measure(self.scale, value, *ends, self.tasks)

    def plain(self) -> Document:
        """As plain values."""
        return {
            "name": self.scale.name,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "tasks": self.tasks,
        }


def normalised(returns: NDArray[np.float64], bounds: tuple[float, float]) -> NDArray[np.float64]:
    """Normalised scores: 0 at the lower reference return, 100 at the upper one."""
    low, high = bounds
    return 100 * (returns - low) / (high - low)


def common_scale(scales: Sequence[Scale]) -> str:
    """Name of what several tasks are judged by, in words."""
    return " or ".join(dict.fromkeys(scale.name for scale in scales))
