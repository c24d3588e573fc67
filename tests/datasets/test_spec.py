import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import episode, write

from mtorl import InputError
from mtorl.datasets.opening import open_stores
from mtorl.datasets.spec import DataSpec, describe_stores
from mtorl.datasets.statistics import QUANTILES
from mtorl.datasets.store import EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.envs import PointReach
from mtorl.envs.collect import collect


def test_joined_stores(tmp_path: Path) -> None:
    first = write(tmp_path / "first", [episode("a", 5, 0), episode("b", 4, 1)])
    second = write(tmp_path / "second", [episode("b", 3, 2)], ("b",))
    spec = describe_stores(open_stores([first.path, second.path]))
    assert (spec.task_names, spec.steps, spec.episodes) == (("a", "b"), (5, 7), (1, 2))
    returns = [episode("b", 4, 1).rewards.sum(), episode("b", 3, 2).rewards.sum()]
    np.testing.assert_allclose(spec.return_quantiles[1], np.quantile(returns, QUANTILES), rtol=1e-5)
    states = np.concatenate([episode("b", 4, 1).observations[:-1], episode("b", 3, 2).observations[:-1]])
    np.testing.assert_allclose(spec.observation_std[1], states.std(0), rtol=1e-5)
    assert describe_stores(open_stores([second.path, first.path])).task_names == ("b", "a")
    third = write(tmp_path / "third", [episode("c", 2, 3)], ("c",))
    joined = describe_stores(open_stores([first.path, third.path]))
    assert joined.task_names == ("a", "b", "c") == tuple(joined.suite["init_args"]["tasks"])
    with pytest.raises(InputError, match="given twice"):
        open_stores([first.path, tmp_path / "second" / ".." / "first"])


def test_stores_of_other_suites_or_dimensions_are_refused(small: EpisodeStore, tmp_path: Path) -> None:
    wide = dataclasses.replace(episode(), observations=np.zeros((6, 7), np.float32))
    flat = dataclasses.replace(episode(), actions=np.zeros((5, 1), np.float32))
    for number, (one, dimensions, suite, settings, version, message) in enumerate(
        (
            (episode(), (3, 2), "other.Suite", {}, "1", "suite some.Suite and other.Suite differ"),
            (episode(), (3, 2), "some.Suite", {"goal_visible": False}, "1", "suite settings .*goal_visible.* differ"),
            (episode(), (3, 2), "some.Suite", {}, "2", "versions .*'2'.* differ"),
            (wide, (7, 2), "some.Suite", {}, "1", "observation dimension 3 and 7 differ"),
            (flat, (3, 1), "some.Suite", {}, "1", "action dimension 2 and 1 differ"),
        )
    ):
        path = tmp_path / str(number)
        description = {"class_path": suite, "init_args": settings}
        StoreWriter(path, description, ("a", "b"), dimensions, 9, {"simulator": version}, {}).write([one])
        with pytest.raises(InputError, match=f"cannot be joined: {message}"):
            open_stores([small.path, path])
    with pytest.raises(InputError, match="no data set was given"):
        open_stores([])


def test_tasks_without_episodes_and_unknown_tasks_are_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "x", [episode("a")])
    with pytest.raises(InputError, match="no episodes of b"):
        describe_stores([store])
    assert describe_stores([store], ["a"]).task_names == ("a",)
    with pytest.raises(InputError, match=r"unknown tasks \['z'\]"):
        describe_stores([store], ["z"])


def test_data_spec_survives_json(spec: DataSpec) -> None:
    assert DataSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_normaliser(spec: DataSpec, store: EpisodeStore) -> None:
    mean, std = spec.normaliser(per_task=False, floor=0.01)
    states = np.concatenate([one.observations[:-1] for one in store])
    np.testing.assert_allclose(mean[0], states.mean(0), atol=1e-5)
    np.testing.assert_allclose(std[0], states.std(0), atol=1e-5)
    assert (mean == mean[0]).all() and (std == std[0]).all()
    mean, _ = spec.normaliser(per_task=True, floor=0.01)
    away = np.concatenate([one.observations[:-1] for one in store if one.task == "away-0"])
    np.testing.assert_allclose(mean[2], away.mean(0), atol=1e-5)
    assert (spec.normaliser(False, 100.0)[1] == 100).all()


def test_joining_episodes_that_end_differently_warns(suite: PointReach, tmp_path: Path) -> None:
    for name, after in (("a", 10), ("b", 10), ("c", 20)):
        collect(suite, tmp_path / name, "expert", episodes=1, after_success=after, workers=0, quiet=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_stores([tmp_path / "a", tmp_path / "b"])
    with pytest.warns(UserWarning, match="returns are not comparable"):
        open_stores([tmp_path / "a", tmp_path / "c"])


def test_statistics_of_all_tasks_for_one(store: EpisodeStore, spec: DataSpec) -> None:
    one = describe_stores([store], ["away-0"], pooled=True)
    assert one.task_names == ("away-0",) and one.steps == (spec.steps[2],)
    for floor, per_task in ((0.01, False), (0.01, True)):
        for moments, expected in zip(one.normaliser(per_task, floor), spec.normaliser(False, floor), strict=True):
            np.testing.assert_allclose(moments[0], expected[0], rtol=1e-6)
    assert describe_stores([store], ["away-0"]).observation_mean == (spec.observation_mean[2],)


def test_groups_are_kept_and_earlier_files_have_none(spec: DataSpec) -> None:
    assert spec.groups == (0, 1, 0) and spec.grouped == (("towards-0", "away-0"), ("towards-2",))
    content = json.loads(json.dumps(spec.to_json()))
    assert DataSpec.from_json(content).groups == (0, 1, 0)
    del content["groups"]
    earlier = DataSpec.from_json(content)
    assert earlier.groups is None and earlier.grouped == () and earlier.to_json().keys() == content.keys()


@pytest.mark.parametrize("groups", [(0, 1), (0, 2, 0), (1, 1, 1), (0, -1, 0)])
def test_groups_that_leave_something_out_are_refused(spec: DataSpec, groups: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"groups is \[.*\]; expected the group of each of 3 tasks"):
        dataclasses.replace(spec, groups=groups)
