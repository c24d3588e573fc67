"""Checks of constructor arguments: one line each, one form of message. NaN fails every one of them."""

import math
from collections.abc import Sequence
from typing import Any, get_args

from mtorl import InputError


def within(interval: str, /, **values: float | None) -> None:
    """Refuses numbers outside an interval.

    Args:
        interval: As people write it: `[0, 1)`, `(0, inf)`.
        values: By the parameters' names; None (not given) passes.

    Raises:
        InputError: Names the parameter, its value and what was expected.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    for name, value in values.items():
        if value is None:
            continue
        above = value >= low if interval[0] == "[" else value > low
        under = value <= high if interval[-1] == "]" else value < high
        if not (above and under):
            raise InputError(f"{name} is {value}; expected {_words(interval, low, high)}.")


def at_least(least: int, /, **values: int | None) -> None:
    """Refuses counts below `least`; None (not given) passes. Raises InputError as `within` does."""
    within(f"[{least}, inf)", **values)


def one_of(name: str, value: Any, choices: Any) -> None:
    """Refuses what is no member of a `Literal`, or of a sequence.

    Raises:
        InputError: Names the parameter, its value and the choices.
    """
    members: Sequence[Any] = choices if isinstance(choices, list | tuple) else get_args(choices)
    if value not in members:
        raise InputError(f"{name} is {value!r}; expected one of {', '.join(map(str, members))}.")


def _words(interval: str, low: float, high: float) -> str:
    """An interval in words."""
    if low == -math.inf and high == math.inf:
        return "a finite number"
    if high == math.inf:
        if low == 0 and interval[0] == "(":
            return "a positive number"
        return f"at least {low:g}" if interval[0] == "[" else f"a number above {low:g}"
    return f"a number in {interval}"
