"""Playing along a manifold."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.envs.base import RolloutContext
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import EvalReport
from mtorl.reports.run_report import report
from mtorl.runs.evaluations import evaluate_along
from mtorl.runs.fronts import kept_fronts
from mtorl.runs.run import Run
from mtorl.runs.training import train

SHORT = {"schedule": {"steps": 20, "log_every": 10, "evaluate_every": 0, "save_every": 20}, "sharing": "ParetoManifold"}


@pytest.fixture
def manifold(train_options: dict) -> Run:
    return train(**{**train_options, **SHORT, "tasks": ["towards-0", "away-0"], "optimizer.lr": 0.01})


def play(run: Run) -> EvalReport:
    return run.evaluate(Protocol(goals=2), workers=0, quiet=True)


def test_ends_are_the_tasks_own_policies_and_the_middle_is_neither(manifold: Run) -> None:
    front = evaluate_along(manifold, goals=2, workers=0, quiet=True)
    assert front.points == [((10 - place) / 10, place / 10) for place in range(11)]
    own = play(manifold)
    for task, place in enumerate((0, -1)):
        assert front.reports[place].episodes[2 * task : 2 * task + 2] == own.episodes[2 * task : 2 * task + 2]
        assert front.is_of(own)
    returns = {sum(episode.reward for episode in found.episodes) for found in front.reports}
    assert len(returns) == 11, "all points play differently"


def test_a_point_plays_the_mixture_of_the_members(manifold: Run) -> None:
    policy = manifold.policy()[0]
    (member,) = manifold.sharing().values()
    point = policy.points()[3]
    there = policy.at(point)
    there.reset(RolloutContext(np.zeros(2, dtype=int), np.arange(2)))
    dense = {name: value.detach() for name, value in policy.agent.named_parameters()}
    expected = member.at(point).effective(dense, 1)
    for name, value in there.agent.named_parameters():
        torch.testing.assert_close(value, expected[name])
    assert policy.points() == there.points()


def test_points_that_were_played_are_read_unless_they_are_of_other_weights(manifold: Run) -> None:
    first = evaluate_along(manifold, goals=2, workers=0, quiet=True)
    path = first.reports[4].path
    assert path is not None and path.parent == manifold.folder / "evaluations" / "manifold" / "heldout-last-2"
    content = json.loads(path.read_text())
    assert content["source"]["point"] == [0.6, 0.4]
    content["policy"] = "kept"
    path.write_text(json.dumps(content))
    again = evaluate_along(manifold, goals=2, workers=0, quiet=True)
    assert again.reports[4].policy == "kept" and kept_fronts(manifold) == [again]
    content["source"]["sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    assert evaluate_along(manifold, goals=2, workers=0, quiet=True).reports[4].policy == first.reports[4].policy


def test_the_report_shows_it_beside_the_usual_evaluation(manifold: Run, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--goals", "1", "--workers", "0", "--quiet", "true"]
    assert main(["evaluate", str(manifold.folder), "--along", "manifold", *options]) == 0
    shown = capsys.readouterr().out
    assert shown.count("%") == 11 * 3 and "all away-0" in shown and "evaluations/manifold/heldout-last-1" in shown
    with pytest.raises(InputError, match="no heldout evaluation"):
        report(manifold.folder)
    play(manifold)
    path = report(manifold.folder)
    points = json.loads(path.with_suffix(".json").read_text())["runs"][0]["along_manifold"]
    assert [row["point"] for row in points] == [[(10 - place) / 10, place / 10] for place in range(11)]
    assert all(row["goals"] == 1 and set(row["tasks"]) == {"towards-0", "away-0"} for row in points)
    page = path.read_text()
    assert "Along the manifold" in page and "1 held-out goals (never trained on) per task and point" in page
    assert [found.source.point for found in manifold.reports()] == [None]


def test_runs_without_a_manifold_are_refused_by_name(
    train_options: dict, baseline: Callable[[dict], Run], capsys: pytest.CaptureFixture[str]
) -> None:
    shared = baseline(train_options)
    along = ["--along", "manifold", "--workers", "0"]
    assert main(["evaluate", str(shared.folder), *along]) == 2
    assert "--sharing Shared, number of tasks: 3. Expected a run of several tasks" in capsys.readouterr().err
    single = train(**{**train_options, **SHORT, "tasks": ["towards-0"]})
    assert main(["evaluate", str(single.folder), *along]) == 2
    assert "--sharing ParetoManifold, number of tasks: 1." in capsys.readouterr().err
    assert main(["evaluate", "--policy", "expert", "--suite", "PointReach", *along]) == 2
    assert "--along is for runs" in capsys.readouterr().err
    assert main(["evaluate", str(shared.folder), *along, "--recorded", train_options["data"]]) == 2
    assert "not given together" in capsys.readouterr().err


def test_double_precision_plays_as_the_run_does(train_options: dict) -> None:
    options = {"sharing": "CrossLearning", "dtype": "float64", "schedule": {"steps": 5, "evaluate_every": 0}}
    policy = train(**train_options | options).policy()[0]
    assert all(it.dtype == torch.float32 for it in policy.agent.parameters())
    policy.reset(RolloutContext(np.full(3, 1), np.arange(3)))
    assert policy.act(np.zeros((3, 4), np.float32), np.zeros(3, np.float32)).dtype == np.float32
