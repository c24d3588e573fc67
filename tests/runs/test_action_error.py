"""Policies whose error is known in advance."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.base import RolloutContext
from mtorl.envs.collect import collect
from mtorl.runs.action_error import action_errors
from mtorl.runs.run import Run
from mtorl.runs.training import train


class Constant:
    """Always acts with the number of its task, and keeps what it was shown."""

    def __init__(self) -> None:
        self.seen: list[NDArray[np.float32]] = []
        self.rewards: list[NDArray[np.float32]] = []

    def reset(self, context: RolloutContext) -> None:
        assert context.tasks is not None
        self.task = context.tasks

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append(observations)
        self.rewards.append(rewards)
        return np.repeat(self.task[:, None] / 10, 2, 1).astype(np.float32)


def test_a_constant_policy_is_as_wrong_as_the_actions_say(store: EpisodeStore) -> None:
    names = ("away-0", "towards-0")  # in an order of its own
    found = action_errors(Constant(), store, names)
    for number, name in enumerate(names):
        actions = np.concatenate([episode.actions for episode in store if episode.task == name])
        assert found[name] == pytest.approx(np.square(actions - number / 10).mean(), rel=1e-5)


def test_a_policy_of_other_tasks_is_refused(store: EpisodeStore) -> None:
    policy = Constant()
    policy.task_names = ("towards-0", "away-0")  # type: ignore[attr-defined]
    assert set(action_errors(policy, store, policy.task_names)) == {"towards-0", "away-0"}  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"the policy knows the tasks .* in the same order"):
        action_errors(policy, store, ("away-0", "towards-0"))


def test_actions_that_are_no_numbers_are_refused(store: EpisodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for actions, message in ((np.full((12, 2), np.nan), "hold NaN"), (np.zeros(2), r"have shape \[2\]")):
        monkeypatch.setattr(Constant, "act", lambda *_, actions=actions: actions)
        with pytest.raises(InputError, match=f"^towards-0: the policy's actions {message}"):
            action_errors(Constant(), store, ("towards-0",))


def test_the_policy_is_shown_what_was_recorded(store: EpisodeStore) -> None:
    policy = Constant()
    action_errors(policy, store, ("towards-0",))
    for row, episode in enumerate(it for it in store if it.task == "towards-0"):
        np.testing.assert_array_equal([seen[row] for seen in policy.seen[: len(episode)]], episode.observations[:-1])
        earned = [rewards[row] for rewards in policy.rewards[: len(episode)]]
        np.testing.assert_array_equal(earned, [0, *episode.rewards[:-1]])


@pytest.mark.parametrize("agent", ["BehaviorCloning", "DecisionTransformer"])
def test_an_agent_that_trained_errs_less(agent: str, train_options: dict, suite: PointReach, tmp_path: Path) -> None:
    small = {"BehaviorCloning": {"hidden": [32]}, "DecisionTransformer": {"width": 16, "layers": 1, "context": 5}}
    options = {key: value for key, value in train_options.items() if key != "agent.hidden"} | {"agent": agent}
    options |= {f"agent.{name}": value for name, value in small[agent].items()} | {"optimizer.lr": 0.01}
    heldout = collect(suite, tmp_path / "heldout", "expert", episodes=3, split="heldout", workers=0, quiet=True)
    schedule = {"steps": 150, "evaluate_every": 0, "save_every": 1}
    run = train(**{**options, "schedule": schedule, "keep": 150})
    found = run.action_errors(heldout.path)
    assert set(found.tasks) == set(suite.task_names) and found.source.step == 150
    assert found.mean_error == pytest.approx(np.mean(list(found.tasks.values())))
    assert found.mean_error < 0.8 * run.action_errors(heldout.path, "1").mean_error


def test_results_are_kept_until_the_weights_change(train_options: dict, store: EpisodeStore) -> None:
    run = train(**train_options)
    first = run.action_errors(store.path)
    (path,) = (run.folder / "evaluations").glob("actions-last-*.json")
    before = path.stat().st_mtime_ns
    assert run.action_errors(store.path) == first and path.stat().st_mtime_ns == before
    path.write_text(path.read_text().replace(str(first.source.sha256), "other"))
    assert run.action_errors(store.path) == first


def test_the_command(train_options: dict, store: EpisodeStore, capsys: pytest.CaptureFixture) -> None:
    run = train(**train_options)
    assert main(["evaluate", str(run.folder), "--recorded", str(store.path)]) == 0
    assert f"{run.action_errors(store.path).mean_error:.5f}" in capsys.readouterr().out
    assert main(["evaluate", "--policy", "expert", "--suite", "PointReach", "--recorded", str(store.path)]) == 2
    assert "--recorded is for runs" in capsys.readouterr().err
    assert main(["evaluate", str(run.folder), "--recorded", str(store.path), "--goal_visible", "false"]) == 2
    assert "nothing is played" in capsys.readouterr().err


def test_data_of_another_suite_are_refused(train_options: dict, small: EpisodeStore) -> None:
    run = train(**train_options)
    with pytest.raises(InputError, match=r"does not fit the policy: expected suite mtorl\.envs.*got some\.Suite"):
        run.action_errors(small.path)
    assert isinstance(run, Run)
