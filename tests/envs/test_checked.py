"""What suites and environments of users may return, and what is refused by name."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtorl import InputError
from mtorl.envs import PointReach
from mtorl.envs.base import RolloutContext, Step, Suite
from mtorl.envs.checked import CheckedEnv, check_suite
from mtorl.envs.collect import collect
from mtorl.envs.evaluator import evaluate
from mtorl.envs.point_reach import PointEnv
from mtorl.envs.policies import ExpertPolicy, Policy
from mtorl.envs.protocol import Protocol
from mtorl.envs.workers import WorkerPool

CHANGE: dict[str, Any] = {}
"""What environments of `Odd` return instead, from their third step on."""


class OddEnv(PointEnv):
    """Returns what the test says."""

    def reset(self, goal: int) -> np.ndarray:
        self.steps = 0
        return CHANGE.get("first", super().reset(goal))

    def step(self, action: np.ndarray) -> Any:
        step = super().step(action)
        self.steps += 1
        change = {name: value for name, value in CHANGE.items() if name != "first"} if self.steps >= 3 else {}
        return change["whole"] if "whole" in change else step._replace(**change)


class Odd(PointReach):
    """Of such environments."""

    def make(self, task: int) -> PointEnv:
        return OddEnv(self.task_names[task])


@pytest.fixture(params=["collect", "evaluate"])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Plays two episodes of `Odd`, with these values; returns their successes."""

    def act(suite: Suite | None = None, policy: Policy | None = None, **change: Any) -> Any:
        CHANGE.clear()
        CHANGE.update(change)
        suite = suite or Odd(["away-1"])
        if request.param == "collect":
            store = collect(suite, tmp_path / "data", episodes=2, workers=0, quiet=True)
            return [bool(episode.success.any()) for episode in store]
        with WorkerPool(0) as pool:
            report = evaluate(ExpertPolicy(suite), suite, Protocol("official", 2), pool, quiet=True)
        return [episode.success for episode in report.episodes]

    return act


@pytest.mark.parametrize(
    "change",
    [
        {"success": np.float64(1.0), "terminated": 0.0},
        {"success": np.bool_(True), "terminated": np.bool_(False)},
        {"success": 1, "terminated": np.zeros(1)},
        {"reward": np.float32(0.5)},
        {"reward": np.ones((1, 1))},
        {"reward": 1},
        {"first": [0, 0, 1, 0]},
        {"observation": np.array([0.0, 0.0, 1.0, 0.0])},
        {"whole": (np.zeros(4), 0.0, True, False)},
    ],
    ids=str,
)
def test_what_means_the_same_is_taken(play: Any, change: dict) -> None:
    assert play(**change) == [True, True] or "success" not in change


NO_FLAGS = [float("nan"), 0.3, -1, 2, None, "False", [], np.array([True, False]), 1j]
NO_REWARDS = [float("nan"), float("-inf"), 1e39, None, "1", np.ones(2), 1j]
NO_OBSERVATIONS = [
    np.full(4, np.nan),
    np.array([0.0, 0.0, np.inf, 0.0]),
    np.array([0.0, 0.0, 1e39, 0.0]),
    np.zeros(3),
    np.zeros((4, 1)),
    np.zeros(1),
    np.zeros(4, complex),
    np.array(["0"] * 4),
    (np.zeros(4), {}),
    None,
]


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize(
    ("change", "what"),
    [
        *(({"success": value}, "success is") for value in NO_FLAGS),
        *(({"terminated": value}, "terminated is") for value in NO_FLAGS),
        *(({"reward": value}, "the reward is") for value in NO_REWARDS),
        *(({"observation": value}, "the observation") for value in NO_OBSERVATIONS),
        ({"whole": (np.zeros(4), 0.0, False, False, {})}, "what `step` returned"),
        ({"whole": None}, "what `step` returned"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_by_task_goal_and_step(play: Any, change: dict, what: str) -> None:
    with pytest.raises(InputError, match=rf"^in away-1, goal 0, step 3: {what}.*Mend the environment\.$"):
        play(**change)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("first", NO_OBSERVATIONS, ids=str)
def test_a_wrong_first_observation(play: Any, first: Any) -> None:
    with pytest.raises(InputError, match=r"^in away-1, goal 0, at its reset: the observation"):
        play(first=first)


def test_a_large_observation_is_none_that_is_infinite() -> None:
    CHANGE.clear()
    CHANGE.update(first=np.full(4, 3e38))
    assert CheckedEnv(OddEnv("away-1"), Odd(["away-1"]), 0).reset(0).tolist() == [np.float32(3e38)] * 4


class ReusingEnv(PointEnv):
    """Keeps its observation, its reward and the action it was given in the same arrays, and writes to the action."""

    def _observe(self) -> np.ndarray:
        if not hasattr(self, "kept"):
            self.kept, self.earned = np.zeros(4, np.float32), np.zeros(())
        self.kept[:] = super()._observe()
        return self.kept

    def step(self, action: np.ndarray) -> Step:
        step = super().step(action)
        self.earned[()] = step.reward
        action[:] = 9
        return step._replace(reward=self.earned)  # type: ignore[arg-type]


class Reusing(PointReach):
    """Of such environments; its expert writes to what it is shown, and acts with one array again and again."""

    def make(self, task: int) -> PointEnv:
        return ReusingEnv(self.task_names[task])

    def expert(self, task: int) -> Any:
        act, kept = super().expert(task), np.zeros(2, np.float32)

        def reusing(observation: np.ndarray) -> np.ndarray:
            kept[:] = act(observation)
            observation[:] = 7
            return kept

        return reusing


class Rereading:
    """Remembers what it was given without a copy, and acts with one array."""

    def __init__(self, suite: Suite) -> None:
        self.expert = PointReach(suite.task_names).expert(0)
        self.actions = np.zeros((10, 2), np.float32)

    def reset(self, context: RolloutContext) -> None:
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []
        self.before: list[tuple[np.ndarray, np.ndarray]] = []

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        for kept, copy in zip(self.seen, self.before, strict=True):
            np.testing.assert_array_equal(kept[0], copy[0])
            np.testing.assert_array_equal(kept[1], copy[1])
        self.seen.append((observations, rewards))
        self.before.append((observations.copy(), rewards.copy()))
        self.actions[:] = [self.expert(row) for row in observations]
        return self.actions


def test_arrays_that_are_used_again_are_copied(tmp_path: Path) -> None:
    plain, reusing = PointReach(["towards-0"]), Reusing(["towards-0"])
    stores = [collect(it, tmp_path / type(it).__name__, episodes=2, workers=0, quiet=True) for it in (plain, reusing)]
    for expected, found in zip(*stores, strict=True):
        for name in ("observations", "actions", "rewards", "success"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    with WorkerPool(0) as pool:
        reports = [evaluate(Rereading(it), it, Protocol(goals=3), pool, quiet=True) for it in (plain, reusing)]
    assert reports[0].episodes == reports[1].episodes and reports[0].mean_success == 1


class Answering:
    """Acts as the test says."""

    def __init__(self, actions: Any) -> None:
        self.actions = actions

    def reset(self, context: RolloutContext) -> None:
        pass

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> Any:
        return self.actions


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.zeros(2), r"actions have shape \[2\]; expected \[N, A\] = \[10, 2\]"),
        (np.zeros((10, 3)), r"actions have shape \[10, 3\]"),
        (np.full((10, 2), np.nan), "actions hold NaN"),
        ("left", "actions are 'left'; expected numbers"),
    ],
)
def test_actions_of_another_kind_are_refused(suite: PointReach, actions: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^towards-0: the policy's {message}"), WorkerPool(0) as pool:
        evaluate(Answering(actions), suite, Protocol(goals=2), pool, quiet=True)


def test_rows_that_are_not_played_may_be_anything(suite: PointReach) -> None:
    actions = np.zeros((10, 2))
    actions[2:] = np.nan
    with WorkerPool(0) as pool:
        assert evaluate(Answering(actions), suite, Protocol(goals=2), pool, quiet=True).mean_success == 0


class Canonical(PointReach):
    """Keeps one order of tasks, whatever the order in which they are named."""

    def __init__(self, tasks: Sequence[str] | None = None, horizon: int = 50, goal_visible: bool = True) -> None:
        every = ("towards-0", "away-0")
        super().__init__([name for name in every if tasks is None or name in tasks], horizon, goal_visible)


class Stubborn(PointReach):
    """Has its tasks in the order in which it finds them."""

    def __init__(self, tasks: Sequence[str] | None = None, horizon: int = 50, goal_visible: bool = True) -> None:
        super().__init__(list(reversed(tasks or ["towards-0", "away-0"])), horizon, goal_visible)


class Forgetful(PointReach):
    """Its arguments do not say which tasks it has."""

    def __init__(self, tasks: Sequence[str] | None = None) -> None:
        super().__init__(tasks)
        self.arguments = {}


class Unwritable(PointReach):
    """An argument that no file can hold."""

    def __init__(self, tasks: Sequence[str] | None = None, where: Path = Path()) -> None:
        super().__init__(tasks)
        self.arguments = {"where": where}


def test_a_suite_that_is_another_when_built_again_is_refused(tmp_path: Path) -> None:
    for suite in (Stubborn(["towards-0", "away-0"]), Forgetful(["away-1"])):
        with pytest.raises(InputError, match=r"has the tasks .* expected .* known by its position"):
            check_suite(suite)
        with pytest.raises(InputError, match="known by its position"):
            collect(suite, tmp_path / "data", workers=0, quiet=True)
        with pytest.raises(InputError, match="known by its position"), WorkerPool(0) as pool:
            evaluate(ExpertPolicy(suite), suite, Protocol(goals=1), pool, quiet=True)
    with pytest.raises(InputError, match="known by its position"):
        Stubborn(["towards-0", "away-0"]).subset(["towards-0", "away-0"])
    with pytest.raises(InputError, match="known by its position"):
        Forgetful(["away-1"]).changed()
    assert Canonical(["away-0", "towards-0"]).subset(["away-0", "towards-0"]).task_names == ("towards-0", "away-0")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task_names", ()),
        ("task_names", "away-0"),
        ("task_names", ("away-0", "away-0")),
        ("task_names", (1,)),
        ("observation_dim", 4.0),
        ("action_dim", 0),
        ("horizon", np.int64(50)),
        ("horizon", True),
        ("arguments", [1]),
    ],
)
def test_a_malformed_suite_is_refused_by_name(name: str, value: Any) -> None:
    suite = PointReach(["away-0"])
    setattr(suite, name, value)
    with pytest.raises(InputError, match=rf"^PointReach\.{name} (is|has)"):
        check_suite(suite)
    with pytest.raises(InputError, match=r"Unwritable\.arguments is"):
        check_suite(Unwritable())


def test_a_policy_is_told_its_own_tasks_only(suite: PointReach) -> None:
    expert = ExpertPolicy(suite)
    for names in (suite.task_names[::-1], suite.task_names[:1]):
        with pytest.raises(InputError, match="the policy knows the tasks"), WorkerPool(0) as pool:
            evaluate(expert, PointReach(names), Protocol(goals=1), pool, quiet=True)


def test_suites_travel_as_their_arguments(suite: PointReach) -> None:
    again = pickle.loads(pickle.dumps(suite))
    assert type(again) is PointReach and again.describe() == suite.describe()


def test_a_suite_that_nobody_can_import_is_refused(tmp_path: Path) -> None:
    class Local(PointReach):
        """Nobody sees it."""

    suite = Local(["away-0"])
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"Move it to the top of a module.*my_suites\.Local"):
            collect(suite, tmp_path / "data", workers=workers, quiet=True)
        with pytest.raises(InputError, match="Move it to the top of a module"), WorkerPool(workers) as pool:
            evaluate(ExpertPolicy(suite), suite, Protocol(goals=1), pool, quiet=True)
