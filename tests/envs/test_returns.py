"""Evaluations of tasks without success, beside tasks that have it."""

import json
from pathlib import Path

import numpy as np
import pytest
from mixed import MixedReach
from scipy import stats

from mtorl import InputError
from mtorl.envs.evaluator import evaluate
from mtorl.envs.policies import RandomPolicy
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import EvalReport
from mtorl.envs.workers import WorkerPool
from mtorl.intervals import mean_interval, mean_rate_interval
from mtorl.measures import RETURN, SCORE, SUCCESS, normalised


def play(*tasks: str, goals: int = 4) -> EvalReport:
    suite = MixedReach(tasks, horizon=10)
    with WorkerPool(0) as pool:
        return evaluate(RandomPolicy(suite), suite, Protocol(goals=goals), pool, quiet=True)


@pytest.fixture(scope="module")
def mixed() -> EvalReport:
    return play("towards-0", "towards-1", "away-0", "away-3")


def test_tasks_show_their_return_where_success_would_stand(mixed: EvalReport) -> None:
    rows = mixed.tasks()
    assert [row.measure.scale for row in rows] == [SUCCESS, SUCCESS, RETURN, RETURN]
    assert rows[0].measure.value == rows[0].rate and (rows[0].measure.low, rows[0].measure.high) == rows[0][3:5]
    row, returns = rows[2], mixed.returns("away-0")
    assert row.measure.value == row.mean_return == returns.mean()
    expected = stats.t.interval(0.95, 3, returns.mean(), stats.sem(returns))
    assert (row.measure.low, row.measure.high) == pytest.approx(expected)
    assert row.score is not None and rows[3].score is None
    assert row.score.value == pytest.approx(100 * (row.mean_return - 2) / 10)
    assert row.score.low == pytest.approx(normalised(np.array(expected[0]), (2, 12)))


def test_success_and_returns_are_never_averaged_together(mixed: EvalReport) -> None:
    success, earned = mixed.means
    rows = mixed.tasks()
    assert (success.scale, success.tasks, earned.scale, earned.tasks) == (SUCCESS, 2, RETURN, 2)
    assert success.value == mixed.mean_success == np.mean([row.rate for row in rows[:2]])
    assert (success.low, success.high) == mixed.mean_interval()
    assert mixed.mean_interval() == mean_rate_interval([row.successes for row in rows[:2]], [4, 4])
    assert earned.value == pytest.approx(np.mean([row.mean_return for row in rows[2:]]))
    assert mixed.mean_of(SUCCESS, ["away-0"]) is None and mixed.mean_of(RETURN, ["away-3"]).value == rows[3].mean_return  # type: ignore[union-attr]


def test_tasks_that_all_have_reference_returns_are_judged_by_normalised_scores() -> None:
    found = play("away-0", "away-1")
    (mean,) = found.means
    scores = [row.score.value for row in found.tasks() if row.score]
    assert mean.scale is SCORE and mean.value == pytest.approx(np.mean(scores)) and mean.low < mean.value < mean.high  # type: ignore[operator]
    assert np.isnan(found.mean_success) and np.isnan(found.mean_interval()).all()


def test_reports_survive_their_file_and_old_ones_are_read(mixed: EvalReport, tmp_path: Path) -> None:
    for report in (mixed, play("away-0")):
        report.save(tmp_path / "r.json")
        assert EvalReport.load(tmp_path / "r.json") == report
    content = json.loads((tmp_path / "r.json").read_text())
    assert "mean_success" not in content and content["returns_only"] == ["away-0"]
    mixed.save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    del content["returns_only"], content["return_bounds"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    old = EvalReport.load(tmp_path / "old.json")
    assert [*old.scales] == [SUCCESS] and old.returns_only == () and len(old.means) == 1
    play("towards-0").save(tmp_path / "new.json")
    assert json.loads((tmp_path / "new.json").read_text()).keys() == content.keys(), "nothing new where all succeed"


def test_reference_returns_stand_in_their_order(mixed: EvalReport, tmp_path: Path) -> None:
    mixed.save(tmp_path / "r.json")
    content = json.loads((tmp_path / "r.json").read_text())
    for wrong, words in (
        ([3, 3], r"away-0 are \(3, 3\); expected the lower"),
        ([1], r"return_bounds.away-0"),
        (4, "4"),
    ):
        (tmp_path / "r.json").write_text(json.dumps(content | {"return_bounds": {"away-0": wrong}}))
        with pytest.raises(InputError, match=words):
            EvalReport.load(tmp_path / "r.json")


def test_of_one_episode_nothing_is_known() -> None:
    (row,) = play("away-0", goals=1).tasks()
    assert row.measure.low is None and row.measure.interval() == "-" and row.score is not None
    assert row.score.text() and row.score.high is None


def test_the_interval_of_a_mean_over_strata_covers_as_often_as_it_says() -> None:
    draw, covered = np.random.default_rng(0), 0
    for _ in range(400):
        low, high = mean_interval([draw.normal(3, 5, 6), draw.normal(-1, 1, 9), draw.normal(0, 2, 4)]) or (0, 0)
        covered += low <= 2 / 3 <= high
    assert 0.92 <= covered / 400 <= 0.98
    assert mean_interval([np.ones(3), np.zeros(4)]) == (0.5, 0.5) and mean_interval([np.ones(1)]) is None


def test_how_numbers_are_shown() -> None:
    assert [RETURN.text(it) for it in (-3.26, 999.94, 12135.4, None)] == ["-3.3", "999.9", "12,135", "-"]
    assert SUCCESS.text(0.126) == "13%" and SUCCESS.text(0.126, 1, " ") == "12.6 %"
