"""Checks of constructor arguments."""

from typing import Literal

import pytest

from mtorl import InputError, checks


@pytest.mark.parametrize(
    ("interval", "good", "bad", "words"),
    [
        ("[0, 1)", (0, 0.5), (-0.1, 1), "a number in [0, 1)"),
        ("(0, 1]", (1e-9, 1), (0, 1.1), "a number in (0, 1]"),
        ("(0, inf)", (1e-300, 1e300), (0, -1, float("inf")), "a positive number"),
        ("[0, inf)", (0, 3), (-1e-9, float("inf")), "at least 0"),
        ("(-1, inf)", (0,), (-1,), "a number above -1"),
        ("(-inf, inf)", (-3, 3), (float("inf"), float("-inf")), "a finite number"),
    ],
)
def test_intervals(interval: str, good: tuple, bad: tuple, words: str) -> None:
    checks.within(interval, **{f"x{place}": value for place, value in enumerate(good)}, missing=None)
    for value in (*bad, float("nan")):
        with pytest.raises(InputError) as error:
            checks.within(interval, rate=value)
        assert str(error.value) == f"rate is {value}; expected {words}."


def test_counts() -> None:
    checks.at_least(1, steps=1, period=None)
    with pytest.raises(InputError, match=r"^period is 0; expected at least 1\.$"):
        checks.at_least(1, steps=2, period=0)


def test_choices() -> None:
    checks.one_of("mode", "min", Literal["min", "max"])
    for choices in (Literal["min", "max"], ("min", "max")):
        with pytest.raises(InputError, match=r"^mode is 'mean'; expected one of min, max\.$"):
            checks.one_of("mode", "mean", choices)
