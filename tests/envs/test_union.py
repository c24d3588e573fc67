from pathlib import Path

import numpy as np
import pytest
from spatial import SpaceReach

from mtorl import InputError
from mtorl.envs import PointReach, Recorded, Union, build_suite
from mtorl.envs.base import RolloutContext
from mtorl.envs.collect import collect
from mtorl.envs.evaluator import evaluate
from mtorl.envs.policies import ExpertPolicy, RandomPolicy
from mtorl.envs.protocol import Protocol
from mtorl.envs.workers import WorkerPool

POINTS = PointReach(["towards-1", "away-2"], horizon=30)


@pytest.fixture(scope="module")
def union() -> Union:
    return Union([POINTS, SpaceReach()])


def test_the_widest_spaces_and_the_longest_horizon(union: Union) -> None:
    assert union.task_names == ("towards-1", "away-2", "up", "down")
    assert (union.observation_dim, union.action_dim, union.horizon) == (6, 3, 30)
    assert union.own_dimensions == ((4, 2), (4, 2), (6, 3), (6, 3)) and union.returns_only == ("up", "down")
    assert [union.of(task).horizon for task in range(4)] == [30, 30, 12, 12]
    assert [union.return_bounds(task) for task in range(4)] == [None, None, (-20.0, 0.0), (-20.0, 1.0)]
    assert union.versions() == {"point_reach": "1", "space": "1", "SpaceReach point_reach": "of space"}


def test_suites_of_equal_spaces_have_no_padding() -> None:
    assert Union([POINTS, PointReach(["away-3"])]).own_dimensions is None


def test_it_is_built_again_from_its_description(union: Union) -> None:
    again = build_suite(union.describe())
    assert again.describe() == union.describe() and again.own_dimensions == union.own_dimensions
    nested = Union([union, PointReach(["away-0"])])
    assert build_suite(nested.describe()).task_names == (*union.task_names, "away-0")
    assert nested.of(2).horizon == 12 and nested.own_dimensions[2] == (6, 3)


def test_a_subset_keeps_the_spaces(union: Union) -> None:
    alone = union.subset(["away-2"])
    assert (alone.observation_dim, alone.action_dim, alone.horizon) == (6, 3, 30)
    assert alone.own_dimensions == ((4, 2),) and alone.returns_only == ()


def test_an_episode_is_that_of_the_tasks_own_suite(union: Union) -> None:
    """Padding beside it: the same start, successors, rewards and flags, whatever is said in padded dimensions."""
    for task, (suite, place) in enumerate([(POINTS, 0), (POINTS, 1), (SpaceReach(), 0), (SpaceReach(), 1)]):
        wide, own = union.make(task), suite.make(place)
        for split in ("train", "heldout"):
            number = 3
            seen = wide.reset(union.goals(split)[number])
            np.testing.assert_array_equal(seen[: suite.observation_dim], own.reset(suite.goals(split)[number]))
            for _ in range(5):
                action = union.expert(task)(seen)
                np.testing.assert_array_equal(
                    action[: suite.action_dim], suite.expert(place)(seen[: len(seen)][: suite.observation_dim])
                )
                assert not action[suite.action_dim :].any() and not seen[suite.observation_dim :].any()
                action[suite.action_dim :] = 0.7
                found, expected = wide.step(action), own.step(action[: suite.action_dim])
                np.testing.assert_array_equal(found.observation[: suite.observation_dim], expected.observation)
                assert found[1:] == expected[1:]
                seen = found.observation


def test_as_many_goals_as_the_suite_with_the_fewest(union: Union) -> None:
    assert (union.goals("train"), union.goals("heldout")) == (range(10), range(10, 30))


def test_goals_are_hidden_as_the_tasks_suite_does(union: Union) -> None:
    hidden = union.changed(goal_visible=False)
    full = np.ones((2, 6), np.float32)
    full[:, 4:] = 0
    assert hidden.of(0).observe(full).tolist() == [[1, 1, 0, 0, 0, 0]] * 2
    assert hidden.of(2).observe(np.ones((2, 6), np.float32)).tolist() == [[1, 1, 1, 0, 0, 0]] * 2
    assert union.of(0).observe(full) is full
    assert (union.arguments["goal_visible"], hidden.arguments["goal_visible"]) == (True, False)
    half = Union([POINTS.changed(goal_visible=False), SpaceReach()])
    assert half.of(1).observe(full).tolist() == [[1, 1, 0, 0, 0, 0]] * 2 and half.of(3).observe(full) is full
    with pytest.raises(InputError, match=r"another thing in each of its suites.*suite\.of\(task\)"):
        hidden.observe(full)


def test_holding_still_is_the_tasks_own(union: Union) -> None:
    action = np.full(3, 0.5, np.float32)
    assert union.of(1).hold(action).tolist() == [0, 0, 0] and union.of(2).hold(action).tolist() == [0, 0, 0.5]


def test_unseen_tasks_of_those_that_have_some(union: Union) -> None:
    unseen = union.unseen()
    assert unseen.task_names == ("towards-0", "towards-2", "towards-3", "away-0", "away-1", "away-3")
    assert (unseen.observation_dim, unseen.action_dim) == (6, 3) and unseen.own_dimensions == ((4, 2),) * 6
    with pytest.raises(InputError, match="none of the suites has unseen tasks"):
        Union([SpaceReach()]).unseen()


@pytest.mark.parametrize(
    ("suites", "options", "message"),
    [
        ([], {}, "a union of no suites"),
        ([POINTS, PointReach(["away-2"])], {}, r"\['away-2'\] are in PointReach and again in PointReach"),
        ([POINTS], {"tasks": ["nonsense"]}, "nonsense"),
        ([POINTS], {"action_dim": 1}, "action_dim is 1; expected at least 2"),
    ],
)
def test_impossible_unions_are_refused(suites: list, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Union(suites, **options)


def test_each_suite_is_played_to_its_own_horizon(union: Union) -> None:
    protocol = Protocol("heldout", goals=2, stop_at_success=False)
    with WorkerPool(0) as pool:
        report = evaluate(ExpertPolicy(union), union, protocol, pool, quiet=True)
        alone = evaluate(RandomPolicy(SpaceReach()), SpaceReach(), protocol, pool, quiet=True)
        random = evaluate(RandomPolicy(union), union, protocol, pool, quiet=True)
    assert {(it.task, it.length) for it in report.episodes} == {
        ("towards-1", 30),
        ("away-2", 30),
        ("up", 12),
        ("down", 12),
    }
    assert {it.task for it in report.episodes if it.success} == {"towards-1", "away-2"}
    assert len(alone.episodes) == 4 and len(random.episodes) == 8


def test_recorded_episodes_are_those_of_the_own_suites(union: Union, tmp_path: Path) -> None:
    """Bit for bit, but for the index of the goal."""
    store = collect(union, tmp_path / "union", "mixed", episodes=4, workers=0, quiet=True)
    store.verify()
    assert store.returns_only == ("up", "down") and store.dimensions_of("away-2") == (4, 2)
    for suite in (POINTS, SpaceReach()):
        own = collect(suite, tmp_path / type(suite).__name__, "mixed", episodes=4, workers=0, quiet=True)
        pairs = zip(own, [it for it in store if it.task in suite.task_names], strict=True)
        for expected, found in pairs:
            assert found.task == expected.task and len(found) == len(expected)
            np.testing.assert_array_equal(found.observations[:, : suite.observation_dim], expected.observations)
            np.testing.assert_array_equal(found.actions[:, : suite.action_dim], expected.actions)
            np.testing.assert_array_equal(found.rewards, expected.rewards)
            assert not found.observations[:, suite.observation_dim :].any()
            assert not found.actions[:, suite.action_dim :].any()


def test_random_actions_are_those_of_the_own_suite(union: Union) -> None:
    def draw(suite, task: int) -> np.ndarray:
        policy = RandomPolicy(suite)
        policy.reset(RolloutContext(np.array([task]), np.array([3])))
        return policy.act(np.zeros((1, suite.observation_dim), np.float32), np.zeros(1, np.float32))[0]

    wide, own = draw(union, 1), draw(POINTS, 1)
    np.testing.assert_array_equal(wide[:2], own)
    assert wide[2] == 0


def test_tasks_known_from_data_alone_cannot_be_played(union: Union) -> None:
    recorded = Recorded(["somewhere"], 9, 1, 40)
    both = build_suite(Union([union, recorded]).describe())
    assert not both.playable and (both.observation_dim, both.action_dim, both.horizon) == (9, 3, 40)
    assert both.dimensions_of(4) == (9, 1) and both.returns_only == ("up", "down", "somewhere")
    with pytest.raises(InputError, match="somewhere: known from data alone"):
        both.goals("train")
    assert both.subset(union.task_names).goals("train") == union.goals("train")
