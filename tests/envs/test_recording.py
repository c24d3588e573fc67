"""Recording what policies do that are no scripted experts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.card import Card
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach, RolloutContext
from mtorl.envs.base import Split, Suite
from mtorl.envs.collect import collect
from mtorl.envs.evaluator import evaluate
from mtorl.envs.policies import ExpertPolicy, Policy, RandomPolicy
from mtorl.envs.protocol import Protocol
from mtorl.envs.recording import BehaviorPolicy
from mtorl.envs.workers import WorkerPool


class Homing:
    """Goes to the marker; what it says depends on what it was told it did."""

    knows_task = True
    description = "Goes to the marker."

    def __init__(self, suite: Suite) -> None:
        self.task_names = suite.task_names
        self.told: list[NDArray[np.float32]] = []

    def reset(self, context: RolloutContext) -> None:
        assert context.tasks is not None and context.episodes is not None
        assert len(context.goals) == len(context.episodes) == 10, "blocks have a fixed size"
        self.told = []

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        last = self.told[-1] if self.told else np.zeros((len(observations), 2), np.float32)
        return 5 * (observations[:, 2:] - observations[:, :2]) + 0.1 * last

    def acted(self, actions: NDArray[np.float32]) -> None:
        self.told.append(actions)


class OneGoal(PointReach):
    """Points that always have the same marker."""

    def goals(self, split: Split) -> range:
        return range(1)


class NoExperts(PointReach):
    """Points that nobody wrote experts for."""

    def expert(self, task: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        raise InputError("NoExperts has none.")


def record(suite: Suite, out: Path, policy: Policy | None = None, noise: float = 0.0, **options: Any) -> EpisodeStore:
    acting = BehaviorPolicy(policy or Homing(suite), suite, "homing", noise)
    return collect(suite, out, policy=acting, quiet=True, **{"episodes": 13, "workers": 0, **options})


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_same_seed_same_bytes_whatever_the_workers(suite: PointReach, tmp_path: Path) -> None:
    here = record(suite, tmp_path / "here", noise=0.2)
    assert files(record(suite, tmp_path / "there", noise=0.2, workers=2).path) == files(here.path)
    other = record(suite, tmp_path / "seed", noise=0.2, seed=1)
    assert not np.array_equal(other.actions[:20], here.actions[:20])
    here.verify()


def test_a_stopped_collection_continues(suite: PointReach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = record(suite, tmp_path / "whole", noise=0.2)

    calls, real = 0, WorkerPool.run

    def stopping(pool: WorkerPool, *given: Any) -> Any:
        nonlocal calls
        for calls, found in enumerate(real(pool, *given), 1):
            if calls == 3:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(WorkerPool, "run", stopping)
    with pytest.raises(KeyboardInterrupt):
        record(suite, tmp_path / "parts", noise=0.2)
    assert len(list((tmp_path / "parts" / "parts").glob("*.npz"))) == 3
    monkeypatch.setattr(WorkerPool, "run", real)
    assert files(record(suite, tmp_path / "parts", noise=0.2).path) == files(whole.path)
    with pytest.raises(InputError, match=r"another collection \(noise: 0\.2 there, 0\.3 asked for\)"):
        record(suite, tmp_path / "parts", noise=0.3)


def test_without_noise_episodes_are_those_of_an_evaluation(suite: PointReach, tmp_path: Path) -> None:
    store = record(suite, tmp_path / "data", ExpertPolicy(suite), episodes=7, split="heldout")
    with WorkerPool(0) as pool:
        report = evaluate(ExpertPolicy(suite), suite, Protocol(goals=7), pool, quiet=True)
    for played, episode in zip(report.episodes, store, strict=True):
        assert (episode.task, episode.goal, len(episode)) == (played.task, played.goal, played.length)
        assert played.reward == pytest.approx(float(episode.rewards.sum()), rel=1e-5)
    assert store.manifest["source"]["split"] == "heldout"


def test_noise_is_what_was_asked_for_and_the_policy_is_told(suite: PointReach, tmp_path: Path) -> None:
    class Still(Homing):
        def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
            return np.zeros((len(observations), 2), np.float32)

    store = record(suite, tmp_path / "still", Still(suite), 0.2)
    assert np.std(store.actions) == pytest.approx(0.2, rel=0.05) and abs(np.mean(store.actions)) < 0.01
    assert {episode.noise for episode in store} == {np.float32(0.2)}
    first, again, *_ = store
    assert not np.array_equal(first.actions, again.actions), "every episode has noise of its own"
    quiet = record(suite, tmp_path / "quiet", Still(suite), 0.0)
    assert not quiet.actions.any()


def test_a_policy_is_told_what_was_done(suite: PointReach, tmp_path: Path) -> None:
    class Again(Homing):
        """Does what was done last."""

        def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
            return self.told[-1] if self.told else np.zeros((len(observations), 2), np.float32)

    store = record(suite, tmp_path / "walk", Again(suite), 0.02)
    for episode in store:
        steps = np.diff(episode.actions, axis=0)
        assert np.std(steps) == pytest.approx(0.02, rel=0.4) and np.std(episode.actions) > 0.03, "a random walk"
    far = record(suite, tmp_path / "far", Again(suite), 3.0)
    assert np.abs(far.actions).max() == 1


def test_a_goal_that_is_played_again_has_other_random_actions(tmp_path: Path) -> None:
    suite = OneGoal(["towards-0"])
    store = record(suite, tmp_path / "data", RandomPolicy(suite), episodes=12)
    assert len({episode.actions.tobytes() for episode in store}) == 12
    assert {episode.goal for episode in store} == {0}


def test_an_episode_ends_after_its_success_where_that_is_asked_for(suite: PointReach, tmp_path: Path) -> None:
    towards = PointReach(["towards-0"])
    whole = record(towards, tmp_path / "whole", episodes=3)
    ended = record(towards, tmp_path / "ended", episodes=3, after_success=4)
    for long, short in zip(whole, ended, strict=True):
        first = int(np.flatnonzero(long.success)[0])
        assert len(long) == 50 and len(short) == first + 5
        np.testing.assert_array_equal(short.actions, long.actions[: len(short)])
        assert short.truncated[-1] and not short.terminated.any()


def test_the_data_say_who_acted(suite: PointReach, tmp_path: Path) -> None:
    acting = BehaviorPolicy(Homing(suite), suite, "my.Homing", 0.2, source={"sha256": "0af3"})
    store = collect(suite, tmp_path / "data", policy=acting, episodes=2, workers=0, quiet=True)
    source = store.manifest["source"]
    assert (source["policy"], source["sha256"], source["noise"]) == ("my.Homing", "0af3", 0.2)
    assert "recipe" not in source
    card = Card.read(store.manifest["card"])
    assert "my.Homing (sha256 0af3), with Gaussian noise of standard deviation 0.2" in card.origin
    assert card.notes == ("Goes to the marker.",)
    assert "scripted experts" in collect(suite, tmp_path / "expert", episodes=1, workers=0, quiet=True).card.origin


def test_suites_without_experts(tmp_path: Path) -> None:
    suite = NoExperts(["towards-0"])
    with pytest.raises(InputError, match=r"recipe medium disturbs scripted experts\. NoExperts has none\."):
        collect(suite, tmp_path / "medium", "medium", episodes=1, workers=0, quiet=True)
    assert not (tmp_path / "medium").exists()
    assert len(collect(suite, tmp_path / "random", "random", episodes=2, workers=0, quiet=True)) == 2
    assert len(record(suite, tmp_path / "homing", episodes=2)) == 2


def test_what_does_not_go_with_a_policy_is_refused(suite: PointReach, tmp_path: Path) -> None:
    for options, message in (
        ({"recipe": "medium"}, "--recipe medium disturbs the scripted expert"),
        ({"hold": True}, "--hold stops the scripted expert"),
        ({"noise": -0.1}, "noise is -0.1; expected at least 0"),
        ({"noise": float("nan")}, "noise is nan"),
    ):
        with pytest.raises(InputError, match=message):
            record(suite, tmp_path / "data", **options)  # type: ignore[arg-type]
    other = Homing(PointReach(suite.task_names[::-1]))
    with pytest.raises(InputError, match="the policy knows the tasks"):
        record(suite, tmp_path / "data", other)
    assert not (tmp_path / "data").exists()


def test_malformed_actions_are_told_by_the_task(suite: PointReach, tmp_path: Path) -> None:
    class Wide(Homing):
        def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> Any:
            return np.zeros((len(observations), 3), np.float32)

    for noise in (0.0, 0.1):
        with pytest.raises(InputError, match=r"towards-0: the policy's actions have shape \[10, 3\]"):
            record(suite, tmp_path / str(noise), Wide(suite), noise)
