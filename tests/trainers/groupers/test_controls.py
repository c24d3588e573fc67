"""Groups that are no result: drawn, given, or of cosines."""

import numpy as np
import pytest
import torch
from families import sampler_of

from mtorl import InputError
from mtorl.agents import BehaviorCloning
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers import CosineAffinity, FixedGroups, RandomGroups, TaskGrouper
from mtorl.trainers.sharing import Shared


def labels(grouper: TaskGrouper, store: EpisodeStore, spec: DataSpec, groups: int, seed: int = 0) -> tuple[int, ...]:
    agent = BehaviorCloning(spec, hidden=(8,))
    return grouper.fit(PhaseFunctions(agent), Shared(), sampler_of(agent, store, spec), groups, seed).labels


def test_random_groups_are_balanced_and_differ(store: EpisodeStore, spec: DataSpec) -> None:
    found = [labels(RandomGroups(), store, spec, 2, seed) for seed in range(20)]
    assert all(sorted(np.bincount(each).tolist()) == [1, 2] for each in found)
    assert set(found) == {(0, 0, 1), (0, 1, 0), (0, 1, 1)}


def test_given_groups_are_taken(store: EpisodeStore, spec: DataSpec) -> None:
    lists = [["away-0"], ["towards-2", "towards-0"]]
    assert spec.task_names == ("towards-0", "towards-2", "away-0")
    assert labels(FixedGroups(lists), store, spec, 2) == (0, 0, 1)
    with pytest.raises(InputError, match="groups is 3; expected 2, the number of lists"):
        labels(FixedGroups(lists), store, spec, 3)
    with pytest.raises(InputError, match=r"the lists hold \['away-0', 'x'\]; expected the tasks of the run"):
        labels(FixedGroups([["away-0"], ["x"]]), store, spec, 2)
    for wrong in ([[], ["a"]], [["a"], ["a"]]):
        with pytest.raises(InputError, match="expected no empty group, and every task once"):
            FixedGroups(wrong)


def test_cosines_are_those_of_mean_gradients(store: EpisodeStore, spec: DataSpec) -> None:
    torch.manual_seed(0)
    agent = BehaviorCloning(spec, hidden=(8,)).double()
    functions = PhaseFunctions(agent)
    found = CosineAffinity(batches=2).fit(functions, Shared(), sampler_of(agent, store, spec), 2)
    sampler = sampler_of(agent, store, spec)
    rows = functions.dense_gradients((sampler.draw().to("cpu", torch.float64) for _ in range(2)), Shared()).dense
    expected = torch.nn.functional.normalize(rows, dim=1)
    np.testing.assert_allclose(found.affinity, (expected @ expected.T).numpy(), atol=1e-7)
