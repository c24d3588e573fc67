"""What everything that is played must do: the references of suites, and every agent as a policy."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from families import SMALL_AGENTS
from numpy.typing import NDArray

import mtorl.envs.policies
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.base import RolloutContext
from mtorl.envs.policies import ExpertPolicy, Policy, RandomPolicy
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import RandomMasks, Shared

REFERENCES = [ExpertPolicy, RandomPolicy]
STEPS, ROWS = 12, 4
Actions = NDArray[np.float32]


@pytest.fixture(params=[*REFERENCES, *SMALL_AGENTS], ids=lambda kind: kind.__name__)
def policy(request: pytest.FixtureRequest, suite: PointReach, spec: DataSpec, store: EpisodeStore) -> Policy:
    """Agents in turn with and without masks of their tasks."""
    if request.param in REFERENCES:
        return request.param(suite)
    with isolated(0, "init"):
        agent = request.param(spec, **SMALL_AGENTS[request.param])
    agent.remember([store])
    kind = (Shared, RandomMasks)[list(SMALL_AGENTS).index(request.param) % 2]
    sharing = {phase.name: kind() for phase in agent.phases}
    for phase in agent.phases:
        sharing[phase.name].init(phase.space, 3, torch.Generator().manual_seed(0))
    return TaskPolicy(agent, sharing)


def context(task: int, rows: int | list[int] = ROWS) -> RolloutContext:
    """A block of episodes of one task, with a goal for each row."""
    goals = np.arange(rows) if isinstance(rows, int) else np.array(rows)
    return RolloutContext(np.full(len(goals), task), goals, seed=5)


def episodes(seed: int = 0) -> tuple[Actions, Actions]:
    """Observations `[STEPS, ROWS, 4]` and rewards `[STEPS, ROWS]`, which do not depend on actions."""
    draw = np.random.default_rng(seed)
    rewards = draw.random((STEPS, ROWS)).astype(np.float32)
    rewards[0] = 0
    return draw.uniform(-1, 1, (STEPS, ROWS, 4)).astype(np.float32), rewards


def play(policy: Policy, task: int, rows: slice = slice(None), seed: int = 0) -> Actions:
    observations, rewards = episodes(seed)
    policy.reset(context(task, list(range(ROWS))[rows]))
    return np.stack([policy.act(*step) for step in zip(observations[:, rows], rewards[:, rows], strict=True)])


def test_every_reference_is_under_this_contract() -> None:
    found = {
        kind
        for kind in vars(mtorl.envs.policies).values()
        if inspect.isclass(kind) and {"reset", "act"} <= vars(kind).keys() and kind is not Policy
    }
    assert found == set(REFERENCES)


def test_actions_of_the_right_shape_and_size(policy: Policy) -> None:
    actions = play(policy, 1)
    assert actions.shape == (STEPS, ROWS, 2) and actions.dtype == np.float32
    assert np.isfinite(actions).all() and np.abs(actions).max() <= 1


def test_the_same_reset_gives_the_same_actions(policy: Policy) -> None:
    """Whatever was played before."""
    first = play(policy, 1)
    np.testing.assert_array_equal(play(policy, 1), first)
    play(policy, 2, seed=1)
    play(policy, 0, slice(1, 2))
    np.testing.assert_array_equal(play(policy, 1), first)
    assert not np.array_equal(play(policy, 2), first), "tasks differ"


def test_rows_do_not_see_each_other(policy: Policy) -> None:
    together = play(policy, 1)
    for rows in (slice(0, 1), slice(2, 3), slice(1, 4)):
        np.testing.assert_allclose(play(policy, 1, rows), together[:, rows], atol=1e-5)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_nothing_is_written_into_what_it_is_given(policy: Policy) -> None:
    observations, rewards = episodes()
    block = context(1)
    assert block.tasks is not None
    for given in (observations, rewards, block.tasks, block.goals):
        given.setflags(write=False)
    policy.reset(block)
    found = [policy.act(*step) for step in zip(observations, rewards, strict=True)]
    np.testing.assert_array_equal(np.stack(found), play(policy, 1))
    assert (observations == episodes()[0]).all() and (rewards == episodes()[1]).all()
    assert (block.tasks == 1).all() and (block.goals == np.arange(ROWS)).all()


@pytest.mark.parametrize(
    "spoil", [lambda array: array.fill(np.nan), lambda array: array.fill(0.5)], ids=["nan", "half"]
)
def test_what_is_done_to_arrays_afterwards_does_not_matter(policy: Policy, spoil: Callable) -> None:
    """Whoever plays may use the same memory for every step, and edit actions."""
    expected = play(policy, 1)
    policy.reset(context(1))
    for step, (observations, rewards) in enumerate(zip(*episodes(), strict=True)):
        actions = policy.act(observations, rewards)
        np.testing.assert_array_equal(actions, expected[step])
        for array in (observations, rewards, actions):
            spoil(array)
