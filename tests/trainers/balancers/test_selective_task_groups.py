"""Affinities, grouping and the steps of selective task group updates."""

import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.agents import BehaviorCloning
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.balancers import SelectiveTaskGroups
from mtorl.trainers.balancers.selective_task_groups import group_by_affinity, updated_affinity
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.sharing import Shared
from mtorl.trainers.update import MultiTaskUpdate


def test_affinity_by_hand() -> None:
    before, after = np.array([2.0, 1.0]), np.array([1.6, 1.1])
    alone = updated_affinity(np.zeros((2, 2)), np.array([0]), before, after, beta=0.5)
    np.testing.assert_allclose(alone, [[0.1, -0.05], [0, 0]])
    both = updated_affinity(np.zeros((2, 2)), np.array([0, 1]), before, after, beta=1.0)
    np.testing.assert_allclose(both, [[0.1, -0.1], [-0.1, 0.0]])


def test_grouping() -> None:
    affinity = np.array([[1, 0.8, -0.2, -0.3], [0.8, 1, -0.1, -0.2], [-0.2, -0.1, 1, 0.7], [-0.3, -0.2, 0.7, 1]])
    labels = group_by_affinity(affinity)
    assert labels is not None and labels[0] == labels[1] != labels[2] == labels[3]
    scaled = group_by_affinity(affinity * np.array([1, 5, 0.1, 3]))
    assert scaled is not None and (scaled == labels).all(), "relative to what a task does to itself"
    affinity[1, 1] = 0
    alone = group_by_affinity(affinity)
    assert alone is not None and (alone == alone[1]).sum() == 1, "a task that was not measured stays alone"
    assert (group_by_affinity(np.zeros((3, 3))) == np.arange(3)).all()


def build(
    spec: DataSpec, store: EpisodeStore, balancer: SelectiveTaskGroups
) -> tuple[BehaviorCloning, list[MultiTaskUpdate]]:
    torch.manual_seed(0)
    agent = BehaviorCloning(spec, hidden=(16,), output_heads="per_task")
    functions = PhaseFunctions(agent)
    optimizer = PhaseOptimizer(OptimizerSettings(warmup=0), agent, [], agent.task_rows(), 100)
    sampler = TaskSampler([store], spec.task_names, 5, 1, np.random.default_rng(0))
    balancer.init(3, functions.space, torch.Generator().manual_seed(0))
    updates = [MultiTaskUpdate(functions, optimizer, sampler.draw(), Shared(), i, 100, seed=0) for i in range(12)]
    return agent, updates


def test_every_task_takes_exactly_one_step(
    spec: DataSpec, store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    balancer = SelectiveTaskGroups()
    agent, updates = build(spec, store, balancer)
    seen: list[list[int]] = []
    real = MultiTaskUpdate.descend_loss

    def descend(self, loss, weights=None):  # type: ignore[no-untyped-def]
        before = agent.head.weight.detach().clone()
        numbers = real(self, loss, weights)
        moved = (agent.head.weight != before).any((1, 2)).nonzero().flatten().tolist()
        assert moved == sorted(self.task_ids.tolist()), "other heads stay bit-identical"
        seen.append(moved)
        return numbers

    monkeypatch.setattr(MultiTaskUpdate, "descend_loss", descend)
    for labels, groups in (([0, 1, 2], [[0], [1], [2]]), ([0, 1, 0], [[0, 2], [1]]), ([1, 1, 1], [[0, 1, 2]])):
        balancer.labels[:] = torch.tensor(labels)
        seen.clear()
        numbers = balancer.step(updates.pop(0))
        assert sorted(seen) == groups and numbers["groups"] == len(groups)


def test_affinities_are_measured_and_tasks_grouped(spec: DataSpec, store: EpisodeStore) -> None:
    balancer = SelectiveTaskGroups(warmup=5, probe_every=1, regroup_every=3)
    _, updates = build(spec, store, balancer)
    for update in updates:
        balancer.step(update)
        assert not update.first_losses.isnan().any()
    assert (balancer.affinity.diagonal() > 0).all(), "a task's step helps itself"
    assert balancer.affinity.count_nonzero() == 9


def test_the_released_code_credits_the_next_group(spec: DataSpec, store: EpisodeStore) -> None:
    corrected, released = SelectiveTaskGroups(beta=1.0), SelectiveTaskGroups(beta=1.0, official_compat=True)
    for balancer in (corrected, released):
        balancer.step(build(spec, store, balancer)[1][0])
    rows = torch.stack([corrected.affinity, released.affinity]).any(-1)
    assert rows[0].all() and rows[1].sum() == 2, "the first group of the order is not credited, the last not measured"
    for row in rows[1].nonzero().flatten().tolist():
        matching = [
            other
            for other in range(3)
            if other != row
            and torch.isclose(released.affinity[row, 3 - row - other], corrected.affinity[other, 3 - row - other])
        ]
        assert len(matching) == 1, "what the step of one group did to a third task stands in the row of the next group"


def test_many_tasks_begin_in_random_groups() -> None:
    balancer = SelectiveTaskGroups(max_groups=2)
    balancer.init(7, None, torch.Generator().manual_seed(0))
    groupings = set()
    for call in range(5):
        balancer._regroup(call)
        assert sorted(balancer.labels.bincount().tolist()) == [3, 4]
        groupings.add(tuple(balancer.labels.tolist()))
    assert len(groupings) > 1


def test_impossible_settings_are_refused() -> None:
    for options in ({"beta": 0.0}, {"warmup": 0}, {"probe_every": 0}):
        with pytest.raises(InputError, match="expected"):
            SelectiveTaskGroups(**options)
