"""What every suite must do."""

from collections.abc import Callable
from inspect import isabstract

import numpy as np
import pytest
from families import concrete

from mtorl import InputError
from mtorl.envs import AntDir, CheetahDir, CheetahVel, Gymnasium, MetaWorld, PointReach, Union
from mtorl.envs.base import Env, RolloutContext, Suite, build_suite, checked_action
from mtorl.envs.policies import RandomPolicy

SUITES = [
    pytest.param((PointReach, {"tasks": ["towards-0", "away-3"]}), id="PointReach"),
    pytest.param((MetaWorld, {"tasks": ["drawer-open-v3", "reach-v3"]}), id="MetaWorld", marks=pytest.mark.simulator),
    pytest.param(
        (Gymnasium, {"environments": {"fast": "HalfCheetah-v5", "slow": "HalfCheetah-v5"}}),
        id="Gymnasium",
        marks=pytest.mark.simulator,
    ),
    pytest.param(
        (CheetahVel, {"tasks": ["velocity-0.075", "velocity-3.000"]}), id="CheetahVel", marks=pytest.mark.simulator
    ),
    pytest.param((CheetahDir, {}), id="CheetahDir", marks=pytest.mark.simulator),
    pytest.param((AntDir, {"tasks": ["direction-00", "direction-25"]}), id="AntDir", marks=pytest.mark.simulator),
    pytest.param(
        (Union, {"suites": [PointReach(["towards-0", "away-3"], horizon=30), MetaWorld(tasks=["reach-v3"])]}),
        id="Union",
        marks=pytest.mark.simulator,
    ),
]
WITHOUT_EXPERT = (Gymnasium, CheetahVel, CheetahDir, AntDir)


@pytest.fixture(params=SUITES, scope="module")
def suite(request: pytest.FixtureRequest) -> Suite:
    kind, arguments = request.param
    return kind(**arguments)


def test_every_suite_is_under_this_contract() -> None:
    kinds = {kind for kind in concrete(Suite) if kind.__module__.startswith("mtorl.") and kind.playable}
    assert {kind for kind in kinds if not isabstract(kind)} == {it.values[0][0] for it in SUITES}


def actor(suite: Suite, task: int) -> Callable[[np.ndarray], np.ndarray]:
    """The expert; where there is none, the same random actions again and again."""
    if not isinstance(suite, WITHOUT_EXPERT):
        return suite.expert(task)
    draw = np.random.default_rng(0)
    return lambda _: draw.uniform(-1, 1, suite.action_dim).astype(np.float32)


def play(suite: Suite, task: int, goal: int, environment: Env | None = None) -> np.ndarray:
    environment = environment or suite.make(task)
    act = actor(suite, task)
    rows = [environment.reset(goal)]
    for _ in range(25):
        rows.append(environment.step(act(rows[-1])).observation)
    return np.stack(rows)


def test_shapes_and_types(suite: Suite) -> None:
    environment = suite.make(0)
    first = environment.reset(suite.goals("train")[0])
    assert first.shape == (suite.observation_dim,) and first.dtype == np.float32
    step = environment.step(np.full(suite.action_dim, 0.5, np.float32))
    assert step.observation.shape == first.shape and step.observation.dtype == np.float32
    assert isinstance(step.reward, float) and isinstance(step.success, bool) and isinstance(step.terminated, bool)


def test_a_goal_determines_the_episode(suite: Suite) -> None:
    """In a new environment, and in one that has played other goals: evaluations keep theirs."""
    goal = suite.goals("heldout")[1]
    first = play(suite, 1, goal)
    used = suite.make(1)
    for other in (goal + 1, goal - 1):
        assert not np.array_equal(play(suite, 1, other, used), first)
    np.testing.assert_array_equal(play(suite, 1, goal, used), first)
    np.testing.assert_array_equal(play(suite, 1, goal), first)
    used.close()


def test_environments_of_one_task_do_not_disturb_each_other(suite: Suite) -> None:
    goals = suite.goals("train")[:2]
    alone = [play(suite, 0, goal) for goal in goals]
    environments = [suite.make(0) for _ in goals]
    actors = [actor(suite, 0) for _ in goals]
    rows = [[environment.reset(goal)] for environment, goal in zip(environments, goals, strict=True)]
    for _ in range(25):
        for environment, act, mine in zip(environments, actors, rows, strict=True):
            mine.append(environment.step(act(mine[-1])).observation)
    for mine, expected in zip(rows, alone, strict=True):
        np.testing.assert_array_equal(np.stack(mine), expected)


def test_pictures_leave_no_trace(suite: Suite) -> None:
    goal = suite.goals("heldout")[2]
    expected = play(suite, 0, goal)
    environment = suite.make(0)
    act = actor(suite, 0)
    rows, pictures = [environment.reset(goal)], []
    for _ in range(25):
        try:
            pictures.append(environment.render((48, 64)))
        except InputError as error:
            pytest.skip(str(error))  # nothing draws on this machine
        rows.append(environment.step(act(rows[-1])).observation)
    np.testing.assert_array_equal(np.stack(rows), expected)
    assert {(it.shape, it.dtype.name) for it in pictures} == {((48, 64, 3), "uint8")}
    assert (pictures[0] != pictures[-1]).any()
    environment.close()


def test_training_and_heldout_goals_are_disjoint_and_differ(suite: Suite) -> None:
    train, heldout = suite.goals("train"), suite.goals("heldout")
    assert len(train) == len(heldout) == 50 and not set(train) & set(heldout)
    environment = suite.make(0)
    starts = {environment.reset(goal).tobytes() for goal in (*train[:5], *heldout[:5])}
    assert len(starts) == 10


def test_the_expert_succeeds(suite: Suite) -> None:
    if isinstance(suite, WITHOUT_EXPERT):
        with pytest.raises(InputError, match=rf"{type(suite).__name__} has no scripted experts; expected data"):
            suite.expert(0)
        return
    for task in range(len(suite.task_names)):
        environment, expert = suite.make(task), suite.expert(task)
        observation = environment.reset(suite.goals("train")[0])
        success = False
        for _ in range(suite.horizon):
            before = observation.copy()
            action = expert(observation)
            np.testing.assert_array_equal(observation, before, "the expert edited its input")
            assert np.abs(action).max() <= 1
            observation, _, now, _ = environment.step(action)
            success |= now
            if success:
                break
        assert success, suite.task_names[task]


def test_actions_are_clipped_and_nan_is_refused(suite: Suite) -> None:
    goal = suite.goals("train")[0]
    results = []
    for size in (1.0, 50.0):
        environment = suite.make(0)
        environment.reset(goal)
        results.append(environment.step(np.full(suite.action_dim, size, np.float32)).observation)
    np.testing.assert_array_equal(*results)
    with pytest.raises(InputError, match=rf"{suite.task_names[0]}: the action .*nan.* holds NaN"):
        suite.make(0).step(np.full(suite.action_dim, np.nan, np.float32))


def test_hidden_goals(suite: Suite) -> None:
    full = np.ones((2, suite.observation_dim), np.float32)
    if "goal_visible" not in suite.arguments:  # no part of its observations is a goal
        assert (suite.hide_goal(full) == full).all() and suite.hide_goal(full) is not full
        with pytest.raises(InputError, match="goal_visible"):
            suite.changed(goal_visible=False)
        return
    hidden = type(suite)(**{**suite.arguments, "goal_visible": False})
    assert (suite.of(0).observe(full) == full).all()
    assert 0 < (hidden.of(0).observe(full) == 0).sum() < full.size
    assert (full == 1).all(), "the input was edited"


def test_description_builds_the_same_suite_again(suite: Suite) -> None:
    again = build_suite(suite.describe())
    assert type(again) is type(suite) and again.task_names == suite.task_names
    assert again.describe() == suite.describe()


def test_subset(suite: Suite) -> None:
    assert suite.subset(suite.task_names[1:]).task_names == suite.task_names[1:]
    with pytest.raises(InputError, match=r"unknown tasks \['nonsense'\]"):
        suite.subset(["nonsense"])


def test_a_suite_that_cannot_take_tasks_says_so() -> None:
    class Fixed(PointReach):
        def __init__(self) -> None:
            super().__init__()

    with pytest.raises(InputError, match=r"Fixed cannot be built from .*Expected a constructor that takes `tasks`"):
        Fixed().subset(["away-0"])


def test_holding_still_keeps_the_actions_shape(suite: Suite) -> None:
    action = np.full(suite.action_dim, 0.7, np.float32)
    held = suite.of(0).hold(action)
    assert held.shape == action.shape and held.dtype == np.float32 and not held[:2].any()


def test_random_actions_depend_on_seed_task_and_goal_only(suite: Suite) -> None:
    def draw(seed: int, task: int, goal: int, suite: Suite = suite) -> np.ndarray:
        policy = RandomPolicy(suite)
        policy.reset(RolloutContext(np.array([task]), np.array([goal]), seed))
        return policy.act(np.zeros((1, suite.observation_dim), np.float32), np.zeros(1, np.float32))

    first = draw(0, 1, 3)
    np.testing.assert_array_equal(draw(0, 0, 3, suite.subset(suite.task_names[1:])), first)
    assert all(not np.array_equal(draw(*other), first) for other in ((1, 1, 3), (0, 0, 3), (0, 1, 4)))


def test_unknown_tasks_are_refused(suite: Suite) -> None:
    with pytest.raises(InputError, match="nonsense"):
        suite.changed(tasks=["nonsense"])


def test_tasks_without_success_are_named(suite: Suite) -> None:
    """They never succeed; the others may."""
    assert suite.returns_only == (suite.task_names if isinstance(suite, WITHOUT_EXPERT) else ())
    assert suite.subset(suite.task_names[:1]).returns_only == suite.returns_only[:1]


@pytest.mark.parametrize(
    "description", [{}, {"class_path": "no.such.Suite"}, {"class_path": "collections.OrderedDict"}]
)
def test_foreign_descriptions_are_refused(description: dict) -> None:
    with pytest.raises(InputError, match=r"cannot be imported|is not a suite"):
        build_suite(description)


def test_checked_action_copies() -> None:
    action = np.array([2.0, -3.0], np.float32)
    assert checked_action(action, "x").tolist() == [1, -1] and action.tolist() == [2, -3]


@pytest.mark.parametrize("number", [5, "5", ["5"]], ids=str)
def test_point_reach_has_as_many_tasks_as_asked_for(number: int | str | list[str]) -> None:
    suite = PointReach(number)
    assert suite.task_names == ("towards-0", "towards-1", "towards-2", "away-0", "away-1")
    assert PointReach(["away-117"]).task_names == ("away-117",)
    with pytest.raises(InputError, match="tasks is 0"):
        PointReach(0)
