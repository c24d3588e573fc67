"""What every grouper of tasks must do."""

import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from families import SMALL_AGENTS, concrete, grouper_of, sampler_of

from mtorl import InputError
from mtorl.agents import Agent, BehaviorCloning, DecisionTransformer
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.spec import DataSpec, describe_stores
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers import FixedGroups, TaskGrouper
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing

ALL = [kind for kind in concrete(TaskGrouper) if not inspect.isabstract(kind) and kind.__module__.startswith("mtorl.")]
SHARING = [Shared, RandomMasks]


@pytest.fixture(params=ALL, ids=lambda kind: kind.__name__)
def grouper(request: pytest.FixtureRequest) -> type[TaskGrouper]:
    return request.param


@pytest.fixture(params=[BehaviorCloning, DecisionTransformer], ids=lambda kind: kind.__name__)
def agent(request: pytest.FixtureRequest, spec: DataSpec) -> Agent:
    with isolated(0, "init"):
        return request.param(spec, **SMALL_AGENTS[request.param])


def grouped(
    grouper: type[TaskGrouper], agent: Agent, store: EpisodeStore, groups: int, seed: int = 0, kind: type = Shared
) -> Grouping:
    """Of the same windows whenever it is called."""
    sharing: Sharing = kind()
    sharing.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
    return grouper_of(grouper, groups).fit(
        PhaseFunctions(agent), sharing, sampler_of(agent, store, agent.spec), groups, seed
    )


@pytest.mark.parametrize("kind", SHARING)
def test_all_tasks_are_in_groups_without_gaps(
    grouper: type[TaskGrouper], agent: Agent, store: EpisodeStore, kind: type
) -> None:
    for groups in (1, 2, 3):
        found = grouped(grouper, agent, store, groups, kind=kind)
        assert found.task_names == agent.spec.task_names and len(found.labels) == 3
        assert set(found.labels) == set(range(groups)) and found.count == groups
        assert all(type(label) is int for label in found.labels)


def test_a_single_task_is_a_group(grouper: type[TaskGrouper], store: EpisodeStore) -> None:
    alone = describe_stores([store], ["towards-2"])
    agent = BehaviorCloning(alone, hidden=(8,))
    made = FixedGroups([["towards-2"]]) if grouper is FixedGroups else grouper_of(grouper, 1)
    found = made.fit(PhaseFunctions(agent), Shared(), sampler_of(agent, store, alone), 1)
    assert found.labels == (0,) and np.isfinite(found.affinity).all() and np.isfinite(found.score)


def test_closeness_is_mutual(grouper: type[TaskGrouper], agent: Agent, store: EpisodeStore) -> None:
    found = grouped(grouper, agent, store, 2)
    affinity = np.array(found.affinity)
    assert affinity.shape == (3, 3) and np.isfinite(affinity).all() and np.isfinite(found.score)
    np.testing.assert_allclose(affinity, affinity.T, atol=1e-9)
    assert (affinity <= affinity.diagonal() + 1e-9).all(), "no task is closer to another than to itself"
    assert found.method.startswith(grouper.__name__), "it says who found the groups"


def test_the_seed_decides(grouper: type[TaskGrouper], agent: Agent, store: EpisodeStore) -> None:
    for seed in (0, 7):
        assert grouped(grouper, agent, store, 2, seed) == grouped(grouper, agent, store, 2, seed)


@pytest.mark.parametrize("groups", [-1, 0, 4])
def test_impossible_numbers_of_groups_are_refused(
    grouper: type[TaskGrouper], agent: Agent, store: EpisodeStore, groups: int
) -> None:
    with pytest.raises(InputError, match=f"groups is {groups}; expected 1 to 3, the number of tasks"):
        grouped(grouper, agent, store, groups)


def test_the_product_is_a_file(grouper: type[TaskGrouper], agent: Agent, store: EpisodeStore, tmp_path: Path) -> None:
    found = grouped(grouper, agent, store, 2)
    found.save(tmp_path / "groups.json")
    assert Grouping.load(tmp_path / "groups.json") == found
    assert found.labels_of(found.task_names[::-1]) == list(found.labels[::-1])
    replace(found, labels=(0, 0, 0)).save(tmp_path / "groups.json")
    assert Grouping.load(tmp_path / "groups.json") != found


def test_the_agent_stays_as_it_was(grouper: type[TaskGrouper], agent: Agent, store: EpisodeStore) -> None:
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    state = torch.get_rng_state()
    grouped(grouper, agent, store, 2)
    assert torch.equal(torch.get_rng_state(), state), "draws of its own are not the program's"
    for name, value in agent.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert agent.training
