"""Rates and scores of runs with how sure they are: intervals, robust means, tests of differences."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

NORMAL_QUANTILE = 1.959964
"""97.5 % of a normal distribution lies below."""
MIN_VARIANCE_RATIO = 0.05
"""Episodes of strata that all succeed or all fail count at most as 20 times as many of a mixed one."""


def mean_rate_interval(successes: Sequence[int], trials: Sequence[int]) -> tuple[float, float]:
    """95 % interval of the mean over strata of success rates, all strata counting the same.

    Wilson's interval with an effective number of trials: that of one binomial sample whose variance is the variance
    of the mean of the strata, as Korn and Graubard (1998) do with an exact interval. Combining the strata's own
    intervals instead covers too little where most rates are near 0 or 1: each of those is pulled towards 1/2, and the
    pulls add up.

    Args:
        successes: Of each stratum.
        trials: Of each stratum, at least one.
    """
    count = np.array(trials, dtype=float)
    rates = np.array(successes) / count
    mean, strata = rates.mean(), len(rates)
    binomial = mean * (1 - mean) * (1 / count).sum() / strata**2  # its variance if all strata had the same rate
    within = (rates * (1 - rates) / np.maximum(count - 1, 1)).sum() / strata**2
    ratio = min(max(within / binomial, MIN_VARIANCE_RATIO), 1.0) if binomial > 0 and count.min() > 1 else 1.0
    effective = strata**2 / (1 / count).sum() / ratio
    square = NORMAL_QUANTILE**2 / effective
    centre = (mean + square / 2) / (1 + square)
    half = (square * (mean * (1 - mean) + square / 4)) ** 0.5 / (1 + square)
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def mean_interval(samples: Sequence[NDArray[np.float64]]) -> tuple[float, float] | None:
    """95 % interval of the mean over strata of their means, all strata counting the same (Student, 1908).

    The number of degrees of freedom is that of Welch (1947) and Satterthwaite (1946); of one stratum it is that of
    Student's interval.

    Args:
        samples: The numbers of each stratum.

    Returns:
        Its ends; None if a stratum has one number only, of which nothing can be said.
    """
    from scipy.special import stdtrit

    if min(map(len, samples)) < 2:
        return None
    count = np.array([len(it) for it in samples])
    middle = float(np.mean([np.mean(it) for it in samples]))
    variances = np.array([np.var(it, ddof=1) for it in samples]) / count
    if not variances.sum():
        return middle, middle
    freedom = variances.sum() ** 2 / (variances**2 / (count - 1)).sum()
    half = float(stdtrit(freedom, 0.975)) * float(np.sqrt(variances.sum())) / len(samples)
    return middle - half, middle + half


def wilson_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a success rate (Wilson, 1927). No trials: the whole of [0, 1]."""
    from scipy.special import ndtri  # imported here, and not scipy.stats, which takes half a second

    if not trials:
        return 0.0, 1.0
    rate, quantile = successes / trials, float(ndtri(0.5 + 0.5 * confidence))
    size = 2 * (trials + quantile**2)
    centre = (2 * trials * rate + quantile**2) / size
    half = quantile / size * math.sqrt(4 * trials * rate * (1 - rate) + quantile**2)
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)


def difference_interval(value: tuple[float, float, float], other: tuple[float, float, float]) -> tuple[float, float]:
    """95 % interval of the difference of two independent numbers, from the interval of each (Zou and Donner, 2008).

    Of two success rates with Wilson's intervals it is Newcombe's (1998, method 10).

    Args:
        value: A number, and the lower and upper end of its interval.
        other: What is taken away from it.
    """
    (one, low, high), (two, other_low, other_high) = value, other
    below = math.hypot(one - low, other_high - two)
    above = math.hypot(high - one, two - other_low)
    return one - two - below, one - two + above


def interquartile_mean(scores: NDArray[np.float64]) -> float:
    """Mean of the middle half of all scores (Agarwal et al., 2021): less noisy than a median, robust like one.

    Args:
        scores: `[seeds, tasks]`.
    """
    from scipy.stats import trim_mean

    return float(trim_mean(np.asarray(scores, dtype=float).ravel(), 0.25))


def probability_of_improvement(scores: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How likely a run of one method is better than a run of another, on a random task; ties count one half.

    Args:
        scores: `[seeds, tasks]`.
        other: `[seeds, tasks]` of the other method.
    """
    one, two = np.asarray(scores, dtype=float)[:, None], np.asarray(other, dtype=float)[None]
    return float(((one > two) + 0.5 * (one == two)).mean())


def delta_m(scores: NDArray[np.float64], reference: NDArray[np.float64], lower_is_better: bool = False) -> float:
    """Mean over tasks of the relative gain over single-task models (Maninis et al., 2019), as a share: 0.1 is 10 %.

    Args:
        scores: `[seeds, tasks]`.
        reference: `[seeds, tasks]` of the single-task models. Tasks in which their mean is 0 have no relative gain and
            are left out.
        lower_is_better: The scores are errors.

    Returns:
        The gain; NaN if no task is left.
    """
    ours, theirs = np.mean(scores, 0), np.mean(reference, 0)
    usable = theirs > 0
    gains = (ours[usable] - theirs[usable]) / theirs[usable]
    return float((-gains if lower_is_better else gains).mean()) if usable.any() else float("nan")


def analysis_of_variance(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Whether the means of groups differ by more than chance (Fisher, 1925).

    Args:
        groups: Of each method the mean scores of its runs.

    Returns:
        F, the variance between groups over that within, and the probability of one as large if all were alike. NaN
        where a group has one run only, or all runs are alike.
    """
    from scipy.stats import f_oneway

    if len(groups) < 2 or min(map(len, groups)) < 2 or not np.ptp(np.concatenate([np.ravel(it) for it in groups])):
        return float("nan"), float("nan")
    found = f_oneway(*groups)
    return float(found.statistic), float(found.pvalue)


def bootstrap_interval(
    statistic: Callable[..., float], *samples: NDArray[np.float64], draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of scores, with seeds drawn anew for every task by itself.

    Args:
        statistic: Of as many arrays as there are samples.
        samples: Scores `[seeds, tasks]` each.
        draws: How often.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    values = []
    for _ in range(draws):
        drawn = []
        for sample in samples:
            seeds, tasks = sample.shape
            drawn.append(sample[random.integers(seeds, size=(seeds, tasks)), np.arange(tasks)])
        values.append(statistic(*drawn))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
