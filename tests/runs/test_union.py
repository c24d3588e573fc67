"""One policy for suites of different spaces: trained, interrupted, played, reported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from spatial import SpaceReach

from mtorl import InputError
from mtorl.envs import PointReach, Union
from mtorl.envs.collect import collect
from mtorl.reports.run_report import report
from mtorl.runs import training
from mtorl.runs.evaluations import evaluate
from mtorl.runs.run import Run
from mtorl.runs.training import train

NAMES = ("towards-0", "away-0", "up", "down")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("union")
    suites = {"plane": PointReach(["towards-0", "away-0"], horizon=20), "space": SpaceReach()}
    for name, suite in suites.items():
        collect(suite, folder / name, "mixed", episodes=5, workers=0, quiet=True)
    return [str(folder / name) for name in suites]


@pytest.fixture
def options(data: list[str], tmp_path: Path) -> dict:
    return {
        "data": data,
        "union": True,
        "out": str(tmp_path / "run"),
        "agent.hidden": [16, 16],
        "balancer": "PCGrad",
        "sharing": "RandomMasks",
        "schedule": {"steps": 20, "log_every": 5, "evaluate_every": 10, "save_every": 10},
        "evaluate_goals": 2,
        "windows": 8,
        "workers": 0,
        "threads": 1,
        "quiet": True,
    }


def test_trained_interrupted_played_and_reported(
    options: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(**options)
    broken = tmp_path / "broken"

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "evaluate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(**{**options, "out": str(broken)})
    monkeypatch.undo()
    train(resume=broken)
    ours, theirs = (Run(it).checkpoints().load("last")["agent"] for it in (whole.folder, broken))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    assert whole.spec.task_names == NAMES and whole.spec.own_dimensions == ((4, 2), (4, 2), (6, 3), (6, 3))
    assert isinstance(whole.suite(), Union)
    found = evaluate(whole.folder, goals=3, stop_at_success=False, workers=0, quiet=True)
    assert {(it.task, it.length) for it in found.episodes} == {
        ("towards-0", 20),
        ("away-0", 20),
        ("up", 12),
        ("down", 12),
    }
    page = report(whole.folder).read_text()
    assert all(name in page for name in NAMES)


def test_the_suites_are_joined_only_where_it_is_said(options: dict) -> None:
    with pytest.raises(InputError, match="add --union true"):
        train(**{**options, "union": False})


def test_imitation_is_measured_on_data_of_the_union(options: dict, tmp_path: Path) -> None:
    run = train(**{**options, "schedule": {"steps": 5, "evaluate_every": 0}})
    suite = Union([PointReach(["towards-0", "away-0"], horizon=20), SpaceReach()])
    store = collect(suite, tmp_path / "heldout", episodes=2, split="heldout", workers=0, quiet=True)
    errors = run.action_errors(store.path)
    assert tuple(errors.tasks) == NAMES and all(np.isfinite(it) and it > 0 for it in errors.tasks.values())


def test_a_hidden_task_is_known_by_its_dimensions(options: dict) -> None:
    """Agents that are not told their task see a task's spaces, and act in them."""
    chosen = {"agent.task_identity": "none", "sharing": "Shared", "balancer": "Equal"}
    run = train(**{**options, **chosen, "schedule": {"steps": 5, "evaluate_every": 0}})
    played = evaluate(run.folder, goals=1, task_identity="hidden", workers=0, quiet=True)
    told = evaluate(run.folder, goals=1, workers=0, quiet=True)
    assert [(it.task, it.reward) for it in played.episodes] == [(it.task, it.reward) for it in told.episodes]


@pytest.mark.parametrize("execution", ["vmap", "joint"])
def test_executions_agree_where_tasks_have_padding(options: dict, tmp_path: Path, execution: str) -> None:
    few = {**options, "schedule": {"steps": 3, "evaluate_every": 0}, "dtype": "float64", "sharing": "Shared"}
    found, expected = (
        Run(train(**{**few, "out": str(tmp_path / it), "execution": it}).folder).checkpoints().load("last")["agent"]
        for it in (execution, "loop")
    )
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_linear_heads_of_padded_tasks_can_be_balanced_at_their_features(options: dict) -> None:
    linear = {"balancer": "BayesAgg", "balancer.warmup": 2, "agent.output_heads": "linear", "sharing": "Shared"}
    run = train(**{**options, **linear, "schedule": {"steps": 8, "evaluate_every": 0}})
    weights = run.checkpoints().load("last")["agent"]["head.bias"]
    assert weights[2:].ne(0).all() and not weights[:2, 2].any(), "padding has no gradient"
