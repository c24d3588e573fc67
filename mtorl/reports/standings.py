"""How every method of a comparison stands to the others."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mtorl.intervals import bootstrap_interval, delta_m, interquartile_mean, probability_of_improvement
from mtorl.measures import SUCCESS
from mtorl.reports.methods import Interval, Method, Scores


@dataclass(frozen=True)
class Row:
    """One method compared to the others.

    Attributes:
        method: What was measured.
        mean: Success over seeds and tasks; where no task has it, what they are judged by.
        middle: Its interquartile mean.
        mean_of_others: Of tasks without success beside others that have it; None where all are judged alike.
        bases: What it is compared to, by the baselines' labels.
        improvement: Probability that it beats each baseline, by the baseline's label; None for itself.
        score: Return-normalised score over seeds and tasks, if there is one.
        lead: By how much that is above each baseline's, by the baseline's label; None for itself.
        gains: Over single-task models, by their label; none for these themselves.
        error: Mean error of actions, if it was measured.
    """

    method: Method
    mean: Interval
    middle: Interval
    mean_of_others: Interval | None
    bases: dict[str, Method]
    improvement: dict[str, Interval | None]
    score: Interval | None
    lead: dict[str, Interval | None]
    gains: "dict[str, Gain]"
    error: Interval | None

    @property
    def is_base(self) -> bool:
        """Whether it is a baseline itself."""
        return self.method in self.bases.values()

    @property
    def step_ratio(self) -> float:
        """Time of a training step over that of the first baseline."""
        return self.method.milliseconds / next(iter(self.bases.values())).milliseconds


@dataclass(frozen=True)
class Gain:
    """What a method gains over single-task models (delta-m).

    Attributes:
        success: Relative gain of success, mean of the tasks; None where they never succeed.
        solved: The same of the tasks that they solve in `SOLVED` of the episodes or more.
        error: Of the error of actions, if that was measured.
    """

    success: Interval | None
    solved: Interval | None
    error: Interval | None


SOLVED = 0.05
"""A relative gain over a rate of success below this says little."""


def row_of(method: Method, bases: dict[str, Method], models: dict[str, Method]) -> Row:
    """A method beside others.

    Args:
        method: What was measured of it.
        bases: What it is compared to, by the baselines' labels.
        models: Single-task models by their labels; none for these themselves.
    """

    def with_interval(statistic: Callable[..., float], *samples: Scores) -> Interval:
        return statistic(*samples), *bootstrap_interval(statistic, *samples)

    def mean(scores: Scores) -> float:
        return float(np.nanmean(scores))

    def difference(scores: Scores, other: Scores) -> float:
        return mean(scores) - mean(other)

    scores, errors = method.scores, method.errors
    _, *others = method.places
    return Row(
        method,
        with_interval(mean, method.judging),
        with_interval(interquartile_mean, method.judging),
        with_interval(mean, scores[:, method.places[others[0]]]) if others else None,
        bases,
        {
            label: None if method is base else with_interval(probability_of_improvement, scores, base.scores)
            for label, base in bases.items()
        },
        with_interval(mean, method.normalised) if method.normalised is not None else None,
        {
            label: None if method is base else with_interval(difference, method.normalised, base.normalised)
            for label, base in bases.items()
            if method.normalised is not None and base.normalised is not None
        },
        {name: _gain(method, single) for name, single in models.items()},
        with_interval(mean, errors) if errors is not None else None,
    )


def _gain(method: Method, single: Method) -> Gain:
    """A method's gain over single-task models, with intervals."""

    def success(tasks: NDArray[np.bool_]) -> Interval | None:
        ours, theirs = method.scores[:, tasks], single.scores[:, tasks]
        if not (theirs > 0).all(0).any():  # in every draw of seeds some task has a relative gain
            return None
        return delta_m(ours, theirs), *bootstrap_interval(delta_m, ours, theirs)

    def error_gain(errors: Scores, reference: Scores) -> float:
        return delta_m(errors, reference, lower_is_better=True)

    error = None
    if method.errors is not None and single.errors is not None:
        measured = method.errors, single.errors
        error = error_gain(*measured), *bootstrap_interval(error_gain, *measured)
    every = np.ones(len(method.tasks), dtype=bool)
    solved = single.scores.mean(0) >= np.array([SOLVED if single.scale(it) is SUCCESS else 0 for it in single.tasks])
    return Gain(success(every), success(solved), error)
