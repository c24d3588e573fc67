"""Agents learn and act the same whatever the size of rewards, and tell returns apart whatever their sign."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from families import SMALL_AGENTS, sampler_of

from mtorl.agents import Agent, DecisionTransformer, PromptDecisionTransformer
from mtorl.agents.actor_critic import ActorCritic
from mtorl.datasets.episode import Demonstration
from mtorl.datasets.spec import describe_stores
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.envs import PointReach
from mtorl.envs.base import RolloutContext
from mtorl.trainers.seeding import isolated

TASKS = ("towards-0", "towards-2", "away-0")
OFFSETS = {"positive": 0.0, "negative": -1.0, "both signs": -0.4}
"""Added to rewards that lie between 0 and 1."""


Changed = Callable[..., EpisodeStore]


@pytest.fixture(scope="session")
def changed(store: EpisodeStore, tmp_path_factory: pytest.TempPathFactory) -> Changed:
    """The same episodes with other rewards: times a factor, after an offset was added."""
    suite, episodes = PointReach(list(TASKS)), [store.episode(number) for number in range(len(store.index))]

    @cache
    def of(factor: float, offset: float = 0.0) -> EpisodeStore:
        path, source = tmp_path_factory.mktemp("rewards") / "data", store.manifest["source"]
        writer = StoreWriter(path, suite.describe(), TASKS, (4, 2), suite.horizon, suite.versions(), source)
        writer.write(replace(it, rewards=(it.rewards + np.float32(offset)) * np.float32(factor)) for it in episodes)
        return EpisodeStore(path)

    return of


def built(kind: type, store: EpisodeStore) -> Agent:
    with isolated(0, "init"):
        agent: Agent = kind(describe_stores([store]), **SMALL_AGENTS[kind])
    agent.remember([store])
    return agent


def learned(kind: type, store: EpisodeStore) -> tuple[Agent, torch.Tensor]:
    """An agent after some steps of every phase, and its losses on the way."""
    agent = built(kind, store).double()
    sampler = sampler_of(agent, store, agent.spec)
    optimizers = [torch.optim.AdamW(phase.module.parameters(), 0.003) for phase in agent.phases]
    losses = []
    for _ in range(8):
        batch = sampler.draw().to("cpu", torch.float64)
        for number, (phase, optimizer) in enumerate(zip(agent.phases, optimizers, strict=True)):
            optimizer.zero_grad()
            values = agent(number, batch).values
            values.sum().backward()
            optimizer.step()
            phase.after_step()
            losses.append(values.detach())
    return agent.eval(), torch.stack(losses)


def played(agent: Agent, factor: float, offset: float) -> np.ndarray:
    """Actions in an episode of each task, and in one of a hidden task that a demonstration shows."""
    draw = np.random.default_rng(0)
    observations = draw.normal(size=(9, 3, 4)).astype(np.float32)
    rewards = (draw.random((9, 3)).astype(np.float32) + np.float32(offset)) * np.float32(factor)
    contexts = [RolloutContext(np.arange(3), np.arange(3))]
    if agent.needs_demonstration and not agent.needs_task:
        shown = Demonstration(observations[:, 0], draw.uniform(-1, 1, (9, 2)).astype(np.float32), rewards[:, 0])
        contexts.append(RolloutContext(None, np.arange(3), demonstration=shown))
    actions = []
    for context in contexts:
        agent.reset(context)
        actions += [agent.act(*step) for step in zip(observations, rewards, strict=True)]
    return np.stack(actions)


@pytest.mark.training
@pytest.mark.parametrize("signs", OFFSETS)
@pytest.mark.parametrize("kind", SMALL_AGENTS, ids=lambda kind: kind.__name__)
def test_the_size_of_rewards_does_not_matter(kind: type, signs: str, changed: Changed, even_noise: None) -> None:
    offset = OFFSETS[signs]
    agent, losses = learned(kind, changed(1.0, offset))
    actions = played(agent, 1.0, offset)
    for factor in (1e-30, 0.001, 1000.0, 1e30):
        other, found = learned(kind, changed(factor, offset))
        torch.testing.assert_close(found, losses, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(played(other, factor, offset), actions, atol=1e-3)


@pytest.mark.training
@pytest.mark.parametrize("kind", SMALL_AGENTS, ids=lambda kind: kind.__name__)
def test_rewards_that_are_all_zero_are_no_rewards(kind: type, changed: Changed, even_noise: None) -> None:
    agent, losses = learned(kind, changed(0.0))
    assert losses.isfinite().all() and np.isfinite(played(agent, 0.0, 0.0)).all()
    for name in ("reward_scale", "return_scale"):
        assert getattr(agent, name, torch.ones(1)).eq(1).all()


@pytest.mark.parametrize("signs", OFFSETS)
@pytest.mark.parametrize("kind", SMALL_AGENTS, ids=lambda kind: kind.__name__)
def test_the_sign_of_rewards_only_mirrors_them(kind: type, signs: str, changed: Changed) -> None:
    """What is worst becomes best, and is told apart as well."""
    one, other = (built(kind, changed(factor, OFFSETS[signs])) for factor in (1.0, -1.0))
    if isinstance(one, ActorCritic):
        assert torch.equal(one.reward_scale, other.reward_scale)  # type: ignore[arg-type]
    if isinstance(one, DecisionTransformer):
        torch.testing.assert_close(one.return_scale, other.return_scale)
        torch.testing.assert_close(one.return_least, -other.return_most)  # type: ignore[operator]
        torch.testing.assert_close(one.return_most, -other.return_least)  # type: ignore[operator]


def episode_of(task: str, action: float, reward: float) -> Episode:
    """One step, in which nothing is seen."""
    flags = np.zeros(1, bool)
    actions, rewards = np.full((1, 2), action, np.float32), np.array([reward], np.float32)
    return Episode(task, np.zeros((2, 4), np.float32), actions, rewards, flags, flags, ~flags)


@pytest.mark.training
@pytest.mark.parametrize("kind", [DecisionTransformer, PromptDecisionTransformer])
@pytest.mark.parametrize("size", [1e-30, 0.001, 1.0, 1000.0, 1e30, -0.001, -1.0, -1000.0])
def test_actions_that_only_the_return_tells_apart_are_learned(kind: type, size: float, tmp_path: Path) -> None:
    """Two kinds of episodes begin alike; the better one is asked for."""
    better, worse = sorted((size, size / 2), reverse=True)
    suite = PointReach(list(TASKS[:2]))
    source = {"recipe": "own", "seed": 0, "split": "train"}
    writer = StoreWriter(tmp_path / "d", suite.describe(), TASKS[:2], (4, 2), 50, suite.versions(), source)
    writer.write(
        episode_of(task, action, reward) for task in TASKS[:2] for action, reward in [(0.9, better), (-0.9, worse)] * 10
    )
    store = EpisodeStore(tmp_path / "d")
    small = SMALL_AGENTS[kind] | {"context": 1} | ({"prompt_length": 1} if kind is PromptDecisionTransformer else {})
    with isolated(0, "init"):
        agent = kind(describe_stores([store]), **small, target_quantile=1.0)
    agent.remember([store])
    sampler, optimizer = sampler_of(agent, store, agent.spec, 32), torch.optim.Adam(agent.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        loss = agent(0, sampler.draw()).values.sum()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.02
    agent.eval().reset(RolloutContext(np.zeros(1, np.int64), np.zeros(1, np.int64)))
    np.testing.assert_allclose(agent.act(np.zeros((1, 4), np.float32), np.zeros(1, np.float32)), 0.9, atol=0.15)
