from pathlib import Path

import gymnasium
import numpy as np
import pytest
from families import SMALL_AGENTS, policy_of
from numpy.typing import NDArray

import mtorl
from mtorl import InputError, MetaWorldAgent, Player
from mtorl.agents import Agent, BehaviorCloning, DecisionTransformer
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import MetaWorld, PointReach
from mtorl.envs.base import RolloutContext
from mtorl.envs.evaluator import play_block
from mtorl.envs.protocol import Protocol
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing

STEPS = 9
SMALL = {"width": 16, "layers": 1, "attention_heads": 2, "context": 4, "dropout": 0.0}


class Noted:
    """Notes what a policy is given and says."""

    def __init__(self, policy: TaskPolicy) -> None:
        self.policy, self.task_names = policy, policy.task_names
        self.steps: list[tuple[NDArray, NDArray, NDArray]] = []

    def reset(self, context: RolloutContext) -> None:
        self.policy.reset(context)

    def act(self, observations: NDArray, rewards: NDArray) -> NDArray:
        actions = self.policy.act(observations.copy(), rewards.copy())
        self.steps.append((observations, rewards, actions))
        return actions


def played(policy: TaskPolicy, suite: PointReach, task: int) -> list[tuple[NDArray, NDArray, NDArray]]:
    """Observations, rewards and actions of the first steps of three episodes in an evaluation."""
    noted = Noted(policy)
    suite = suite.changed(horizon=STEPS)
    play_block(noted, suite, [suite.make(task) for _ in range(3)], task, [50, 51, 52], Protocol())
    return [(seen[:3], earned[:3], np.clip(said[:3], -1, 1)) for seen, earned, said in noted.steps]


@pytest.mark.parametrize("kind", SMALL_AGENTS)
@pytest.mark.parametrize("sharing", [Shared, RandomMasks])
def test_actions_are_those_of_an_evaluation(
    kind: type[Agent], sharing: type[Sharing], suite: PointReach, store: EpisodeStore, spec: DataSpec
) -> None:
    agent = kind(spec, **SMALL_AGENTS[kind])
    agent.remember([store])
    policy = policy_of(agent, sharing)
    episodes = [played(policy, suite, task) for task in range(len(suite.task_names))]
    player = Player(policy, suite)
    player.reset(task=suite.task_names[1])  # one environment
    for seen, earned, said in episodes[1]:
        np.testing.assert_array_equal(player.act(seen[0], earned[0]), said[0])
    player.reset(task=suite.task_names[0])  # several of one task
    for seen, earned, said in episodes[0]:
        np.testing.assert_array_equal(player.act(seen, earned), said)
    tasks, episode = [0, 1, 1, 2, 0], [0, 0, 1, 0, 1]  # of several tasks: the first and second of each
    player.reset(task=tasks)
    begun = [0] * 5
    for step in range(STEPS):
        if step == 4:  # two begin again on the way, as the first ones of their task
            player.reset(where=np.array([False, True, False, False, True]))
            begun[1], begun[4], episode[4] = 4, 4, 0
        at = [episodes[task][step - first] for task, first in zip(tasks, begun, strict=True)]
        seen, earned, said = (
            np.stack([it[part][row] for it, row in zip(at, episode, strict=True)]) for part in range(3)
        )
        np.testing.assert_array_equal(player.act(seen, earned), said)


@pytest.mark.training
def test_a_run_is_played_in_three_lines(store: EpisodeStore, tmp_path: Path) -> None:
    run = mtorl.train(
        data=[str(store.path)], out=str(tmp_path / "run"), schedule__steps=2, agent__hidden=[8], quiet=True
    )
    policy = mtorl.load_policy(run.folder)
    policy.reset(task=policy.task_names[0])
    action = policy.act(np.zeros(4))
    assert action.shape == (2,) and action.dtype == np.float32 and (abs(action) <= 1).all()
    assert policy.act(np.zeros((1, 4))).shape == (1, 2)


def test_returns_need_rewards(suite: PointReach, spec: DataSpec) -> None:
    player = Player(policy_of(DecisionTransformer(spec, **SMALL)), suite)
    player.reset(task=0)
    player.act(np.zeros(4))
    with pytest.raises(InputError, match=r"expected the reward of the step before, policy.act\(observation, reward\)"):
        player.act(np.zeros(4))
    without = Player(policy_of(DecisionTransformer(spec, return_conditioning=False, **SMALL)), suite)
    without.reset(task=0)
    assert [without.act(np.zeros(4)).shape for _ in range(2)] == [(2,), (2,)]


def test_what_does_not_fit_is_refused(suite: PointReach, spec: DataSpec) -> None:
    player = Player(policy_of(BehaviorCloning(spec, hidden=(8,))), suite)
    with pytest.raises(InputError, match="no task 'reach'; expected one of towards-0"):
        player.reset(task="reach")
    with pytest.raises(InputError, match="no task 7"):
        player.reset(task=7)
    with pytest.raises(InputError, match="no episode was begun yet"):
        player.reset(where=np.array([True, False]))
    player.reset(task=[0, 1])
    with pytest.raises(InputError, match="reset was told 2 tasks, act is given observations of 3 environments"):
        player.act(np.zeros((3, 4)))
    player.act(np.zeros((2, 4)))
    with pytest.raises(InputError, match="of as many environments as before"):
        player.act(np.zeros((3, 4)))
    with pytest.raises(InputError, match="an observation has 7 numbers; expected 4"):
        player.act(np.zeros((2, 7)))
    with pytest.raises(InputError, match="the observation holds NaN"):
        player.act(np.full((2, 4), np.nan))
    with pytest.raises(InputError, match=r"expected bool \[2\]"):
        player.reset(where=np.array([True, False, True]))
    player.reset()
    with pytest.raises(InputError, match="trained with the task's identity"):
        player.act(np.zeros(4))


def test_the_goal_is_hidden_as_in_training(spec: DataSpec, suite: PointReach) -> None:
    policy = policy_of(BehaviorCloning(spec, hidden=(8,)))
    hidden = suite.changed(goal_visible=False)
    player, other = Player(policy, hidden), Player(policy, suite)
    seen = np.full(4, 0.3, dtype=np.float32)
    player.reset(0)
    other.reset(0)
    np.testing.assert_array_equal(player.act(seen), other.act(hidden.hide_goal(seen)))
    assert (player.act(seen) != other.act(seen)).any()


@pytest.mark.simulator
def test_meta_worlds_own_loop() -> None:
    from metaworld.evaluation import evaluation

    suite = MetaWorld("MT10", tasks=["reach-v3", "drawer-close-v3"])
    spec = DataSpec(
        task_names=suite.task_names,
        observation_dim=39,
        action_dim=4,
        horizon=500,
        suite={},
        steps=(1, 1),
        episodes=(1, 1),
        observation_mean=((0.0,) * 39,) * 2,
        observation_std=((1.0,) * 39,) * 2,
        return_quantiles=((1.0,) * 21,) * 2,
        success_rate=(1.0, 1.0),
        success_last_rate=(1.0, 1.0),
    )
    agent = MetaWorldAgent(Player(policy_of(DecisionTransformer(spec, **SMALL)), suite), suite.task_names)
    envs = gymnasium.make_vec(
        "Meta-World/custom-mt-envs",
        vector_strategy="sync",
        envs_list=list(suite.task_names),
        seed=1,
        use_one_hot=True,
        max_episode_steps=20,
    )
    _, _, per_task, returns = evaluation(agent, agent.watch(envs), num_episodes=2)
    assert set(per_task) == set(suite.task_names)
    assert all(len(it) == 2 for it in returns.values())
    with pytest.raises(InputError, match="2 environments and 10 tasks"):
        MetaWorldAgent(agent.policy, MetaWorld("MT10").task_names).reset(np.ones(2, dtype=bool))


def test_after_a_refusal_nothing_acts_and_the_task_is_kept(suite: PointReach, spec: DataSpec) -> None:
    player = Player(policy_of(BehaviorCloning(spec, hidden=(8,))), suite)
    player.reset()
    for _ in range(2):
        with pytest.raises(InputError, match="trained with the task's identity"):
            player.act(np.zeros(4))
    player.reset(task=1)
    first = player.act(np.zeros((2, 4)))
    player.reset(task=1)
    player.reset(where=np.ones(2, dtype=bool))  # before any action: the task stays the same
    np.testing.assert_array_equal(player.act(np.zeros((2, 4))), first)
