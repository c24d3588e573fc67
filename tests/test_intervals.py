import math

import numpy as np
import pytest

from mtorl.intervals import (
    analysis_of_variance,
    bootstrap_interval,
    delta_m,
    interquartile_mean,
    mean_rate_interval,
    probability_of_improvement,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (45, 50, 0.7864, 0.9565)],
)
def test_wilson_interval(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_wilson_interval_without_trials_is_everything() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_the_interval_of_one_stratum_is_wilsons() -> None:
    assert mean_rate_interval([45], [50]) == pytest.approx(wilson_interval(45, 50), abs=1e-4)
    assert mean_rate_interval([1], [1]) == pytest.approx(wilson_interval(1, 1), abs=1e-4)


@pytest.mark.parametrize(
    "rates",
    [[0.98] * 10, [0.995] * 50, [0.5] * 10, np.linspace(0.05, 0.95, 10), [0.99] * 8 + [0.7] * 2, [1.0] * 8 + [0.5] * 2],
    ids=["near one", "nearer one", "half", "spread", "two lag", "two fail half"],
)
@pytest.mark.parametrize("trials", [10, 50])
def test_the_interval_of_a_mean_of_rates_covers_it(rates: list[float], trials: int) -> None:
    """Combining the strata's own Wilson intervals covers only 86 to 89 % of the first two."""
    draw = np.random.default_rng(0)
    truth = np.mean(rates)
    found = [
        mean_rate_interval(row.tolist(), [trials] * len(rates))
        for row in draw.binomial(trials, rates, (2000, len(rates)))
    ]
    assert 0.925 <= np.mean([low <= truth <= high for low, high in found]) <= 0.99


def test_strata_that_are_certain_narrow_the_interval_of_the_mean() -> None:
    low, high = mean_rate_interval([50] * 5 + [0] * 5, [50] * 10)
    one_low, one_high = wilson_interval(250, 500)
    assert 0 < high - low < 0.3 * (one_high - one_low)


def test_interquartile_mean_ignores_the_extremes() -> None:
    assert interquartile_mean(np.array([[0.0, 0.4, 0.6, 1.0]])) == 0.5
    assert interquartile_mean(np.array([[0.0, 0.4], [0.6, 9.0]])) == 0.5


def test_probability_of_improvement() -> None:
    one, other = np.array([[1.0, 0.5], [0.8, 0.5]]), np.array([[0.9, 0.5]])
    assert probability_of_improvement(one, other) == (1 + 0 + 0.5 + 0.5) / 4
    assert probability_of_improvement(one, other) + probability_of_improvement(other, one) == 1


def test_bootstrap_intervals_cover_as_often_as_they_say() -> None:
    draw, hits = np.random.default_rng(0), 0
    for trial in range(200):
        scores = draw.normal(0.5, 0.1, (8, 5))
        low, high = bootstrap_interval(lambda it: float(it.mean()), scores, draws=200, seed=trial)
        hits += low <= 0.5 <= high
    assert 0.85 < hits / 200 < 0.99
    assert bootstrap_interval(interquartile_mean, np.ones((3, 4))) == (1, 1)
    paired = bootstrap_interval(probability_of_improvement, np.ones((2, 3)), np.zeros((3, 3)), draws=50)
    assert paired == (1, 1)


def test_delta_m() -> None:
    reference = np.array([[0.5, 0.2, 0.0], [0.5, 0.6, 0.0]])  # means 0.5, 0.4, and a task that has no relative gain
    scores = np.array([[0.75, 0.4, 0.9]])
    assert delta_m(scores, reference) == pytest.approx((0.5 + 0.0) / 2)
    assert delta_m(scores, reference, lower_is_better=True) == pytest.approx(-0.25)
    assert delta_m(reference, reference) == 0
    assert math.isnan(delta_m(scores, 0 * reference))


def test_analysis_of_variance() -> None:
    """Between groups 2 (4 - 3)^2 + 2 (2 - 3)^2 = 4 with 1 degree of freedom, within them 4 with 2."""
    found = analysis_of_variance([[3.0, 5.0], [1.0, 3.0]])
    assert found[0] == pytest.approx(4 / (4 / 2)) and 0 < found[1] < 1
    for groups in ([[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 1.0], [1.0, 1.0]]):
        assert np.isnan(analysis_of_variance(groups)).all()
