"""A task is known by its position: data, runs and suites agree on the order."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mtorl import InputError
from mtorl.datasets.opening import open_stores
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.evaluator import evaluate
from mtorl.envs.protocol import Protocol
from mtorl.envs.workers import WorkerPool
from mtorl.files import read_json, write_json
from mtorl.runs.action_error import action_errors
from mtorl.runs.experiment import describe_data, suite_of
from mtorl.runs.run import Run
from mtorl.runs.training import train

TASKS = ("towards-0", "away-0")


class Canonical(PointReach):
    """Keeps one order of tasks, whatever the order in which they are named."""

    def __init__(self, tasks: Sequence[str] | None = None, horizon: int = 50, goal_visible: bool = True) -> None:
        super().__init__([name for name in TASKS if tasks is None or name in tasks], horizon, goal_visible)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Data sets of one task each, in another order than the suite's."""
    folder = tmp_path_factory.mktemp("single")
    return [
        str(collect(Canonical([name]), folder / name, "expert", 6, workers=0, quiet=True).path)
        for name in reversed(TASKS)
    ]


def test_joined_data_have_the_order_of_their_suite(folders: list[str]) -> None:
    first, other = (describe_data(open_stores(order)) for order in (folders[::-1], folders))
    assert other.task_names == first.task_names == suite_of(other).task_names == TASKS
    assert other == replace(first, data=other.data)
    assert describe_data(open_stores(folders), ["away-0"]).task_names == ("away-0",)


def test_a_suite_without_an_order_of_its_own_has_that_of_the_data(tmp_path: Path) -> None:
    paths = [
        str(collect(PointReach([name]), tmp_path / name, episodes=1, workers=0, quiet=True).path)
        for name in reversed(TASKS)
    ]
    assert describe_data(open_stores(paths)).task_names == TASKS[::-1]


@pytest.fixture
def run(folders: list[str], train_options: dict) -> Run:
    return train(**{**train_options, "data": folders})


def test_the_order_of_the_data_changes_nothing(run: Run, folders: list[str], train_options: dict) -> None:
    again = train(**{**train_options, "data": folders[::-1], "out": train_options["out"] + "-again"})
    found = [it.evaluate(Protocol(goals=4), workers=0, quiet=True).tasks() for it in (run, again)]
    assert found[0] == found[1] and [row.task for row in found[0]] == list(TASKS)


def test_a_run_in_another_order_than_its_suite_is_refused(run: Run) -> None:
    path = run.folder / "data_spec.json"
    content = read_json(path, "")
    write_json(path, content | {"task_names": content["task_names"][::-1]})
    with pytest.raises(InputError, match=r"Canonical has the tasks \['towards-0', 'away-0'\] in this order, the run"):
        Run(run.folder).evaluate(Protocol(goals=1), workers=0, quiet=True)


def test_a_policy_is_told_the_tasks_that_it_was_trained_on(run: Run, folders: list[str]) -> None:
    policy, _ = run.policy()
    with pytest.raises(InputError, match="the policy knows the tasks"), WorkerPool(0) as pool:
        evaluate(policy, PointReach(TASKS[::-1]), Protocol(goals=1), pool, quiet=True)
    with pytest.raises(InputError, match="the policy knows the tasks"):
        action_errors(policy, open_stores(folders)[0], ("away-0",))
