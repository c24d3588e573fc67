"""Runs played at points between their tasks."""

import json
from pathlib import Path

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
from mtorl.runs.kept import kept_front
from mtorl.runs.manifold import policies_along
from mtorl.runs.run import Run
from mtorl.runs.training import train

PAIR = ["towards-0", "away-0"]


@pytest.fixture
def run(train_options: dict) -> Run:
    options = {"sharing": "ParetoManifold", "sharing.rank": 2, "tasks": PAIR, "agent.task_identity": "none"}
    return train(**train_options | options | {"schedule": {"steps": 20, "evaluate_every": 0}})


def actions(policy: object, task: int) -> np.ndarray:
    observations = np.random.default_rng(0).uniform(-1, 1, (3, 4)).astype(np.float32)
    policy.reset(RolloutContext(np.full(3, task), np.arange(3)))  # type: ignore[attr-defined]
    return policy.act(observations, np.zeros(3, np.float32))  # type: ignore[attr-defined]


def test_one_network_plays_all_tasks_at_a_point(run: Run) -> None:
    found = {source.point: policy for policy, source in policies_along(run)}
    usual = run.policy()[0]
    assert list(found) == [(share / 10, (10 - share) / 10) for share in range(10, -1, -1)]
    for policy in found.values():
        assert np.array_equal(actions(policy, 0), actions(policy, 1))
    assert not np.allclose(actions(found[1.0, 0.0], 0), actions(found[0.0, 1.0], 0), atol=1e-6)
    for task, corner in enumerate(((1.0, 0.0), (0.0, 1.0))):
        assert np.array_equal(actions(found[corner], task), actions(usual, task))


def test_evaluations_are_kept_beside_others_and_shown(run: Run) -> None:
    shown = run.evaluate(Protocol(goals=2), workers=0, quiet=True)
    assert report(run) and "Along the manifold" not in (run.folder / "report.html").read_text()
    reports = evaluate_along(run, goals=2, workers=0, quiet=True)
    assert len(reports) == len({it.path for it in reports}) == 11
    assert all(it.path and it.path.parent == run.folder / "evaluations" for it in reports)
    assert [EvalReport.load(it.path) for it in reports if it.path] == reports == kept_front(run.folder, shown)
    ends = [reports[task * 10].tasks()[task] for task in (0, 1)]
    assert ends == shown.tasks(), "each task is played at its own corner"
    assert run.reports() == [shown]
    evaluate_along(run, goals=1, workers=0, quiet=True)
    assert kept_front(run.folder, shown) == reports, "played in the same way"
    page = report(run)
    assert "Along the manifold" in page.read_text()
    front = json.loads(page.with_suffix(".json").read_text())["runs"][0]["front"]
    assert [row["point"] for row in front] == [list(it.source.point or ()) for it in reports]
    assert all(set(row["tasks"]) == set(PAIR) for row in front)


def test_the_command_shows_every_point(run: Run, capsys: pytest.CaptureFixture) -> None:
    played = ["--along", "manifold", "--goals", "1", "--workers", "0", "--quiet", "true"]
    arguments = ["evaluate", str(run.folder), *played]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "40-60" in shown and "saved: 11 reports" in shown
    assert main([*arguments, "--policy", "expert"]) == 2
    assert main([*arguments, "--recorded", "x"]) == 2


@pytest.mark.parametrize("sharing", ["Shared", "CrossLearning", "RandomMasks"])
def test_what_has_no_manifold_is_refused_by_name(sharing: str, train_options: dict) -> None:
    other = train(**train_options | {"sharing": sharing, "schedule": {"steps": 2, "evaluate_every": 0}})
    with pytest.raises(InputError, match=f"trained with {sharing} .* no manifold .* --sharing ParetoManifold"):
        evaluate_along(other, goals=1, workers=0, quiet=True)
    assert not list(Path(other.folder, "evaluations").glob("*"))


def test_double_precision_plays_as_the_run_does(train_options: dict) -> None:
    options = {"sharing": "CrossLearning", "dtype": "float64", "schedule": {"steps": 5, "evaluate_every": 0}}
    policy = train(**train_options | options).policy()[0]
    assert all(it.dtype == torch.float32 for it in policy.agent.parameters())
    assert actions(policy, 0).dtype == np.float32
