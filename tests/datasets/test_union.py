"""Stores of suites with different dimensions, used together."""

from pathlib import Path

import numpy as np
import pytest
from spatial import SpaceReach

from mtorl import InputError
from mtorl.datasets.opening import check_fits, open_stores
from mtorl.datasets.prompts import PromptSettings
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.spec import DataSpec, describe_stores
from mtorl.datasets.statistics import pooled_moments
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach, Union
from mtorl.envs.collect import collect
from mtorl.runs.data import describe_data, suite_of

NAMES = ("towards-0", "away-0", "up", "down")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of points in the plane, of points in space, and of both as one suite."""
    folder = tmp_path_factory.mktemp("stores")
    plane, space = PointReach(["towards-0", "away-0"], horizon=20), SpaceReach()
    suites = {"plane": plane, "space": space, "both": Union([plane, space])}
    for name, suite in suites.items():
        collect(suite, folder / name, "mixed", episodes=6, workers=0, quiet=True)
    return [folder / name for name in suites]


@pytest.fixture(scope="module")
def stores(paths: list[Path]) -> list[EpisodeStore]:
    return open_stores(paths[:2], union=True)


def test_stores_of_different_suites_are_refused_unless_it_is_said(paths: list[Path]) -> None:
    with pytest.raises(InputError, match=r"cannot be joined: suite .* differ\. .*add --union true"):
        open_stores(paths[:2])


def test_stores_of_one_suite_must_agree_all_the_same(paths: list[Path], tmp_path: Path) -> None:
    other = collect(PointReach(["towards-0"], horizon=21), tmp_path / "other", episodes=1, workers=0, quiet=True)
    opened = open_stores([paths[0], other.path], union=True)  # of other settings: another suite
    with pytest.raises(InputError, match=r"\['towards-0'\] are in PointReach and again in PointReach"):
        describe_data(opened)


def test_what_agents_must_know_is_that_of_the_union(paths: list[Path], stores: list[EpisodeStore]) -> None:
    found, recorded = describe_data(stores), describe_data(open_stores(paths[2:]))
    assert found.task_names == NAMES and (found.observation_dim, found.action_dim, found.horizon) == (6, 3, 20)
    assert found.own_dimensions == ((4, 2), (4, 2), (6, 3), (6, 3)) and found.returns_only == ("up", "down")
    for name in ("own_dimensions", "returns_only", "observation_mean", "observation_std", "suite", "steps"):
        assert getattr(found, name) == getattr(recorded, name), name
    assert DataSpec.from_json(found.to_json()) == found
    assert suite_of(found).task_names == NAMES
    check_fits(found, EpisodeStore(paths[2]))
    with pytest.raises(InputError, match="expected observation dimension 6, got 4"):
        check_fits(found, stores[0])


def test_a_subset_of_the_tasks(stores: list[EpisodeStore]) -> None:
    few = describe_data(stores, ["away-0", "up"])
    assert few.task_names == ("away-0", "up") and few.own_dimensions == ((4, 2), (6, 3))
    assert suite_of(few).observation_dim == few.observation_dim == 6
    assert describe_data(stores, ["up"]).own_dimensions is None
    assert describe_data(stores, ["away-0"]).own_dimensions == ((4, 2),), "the suite's spaces stay"


@pytest.mark.parametrize("per_task", [False, True])
def test_padding_does_not_distort_what_others_use(stores: list[EpisodeStore], per_task: bool) -> None:
    """Of a dimension the moments are those of the tasks that have it; padding has mean zero and the floor."""
    mean, std = describe_data(stores).normaliser(per_task, 0.01)
    plane, space = (describe_stores([store]).normaliser(per_task, 0.01) for store in stores)
    for values, own, rest in ((mean, space[0], 0.0), (std, space[1], np.float32(0.01))):
        np.testing.assert_allclose(values[2:, 4:], own[:, 4:], rtol=1e-6)
        assert (values[:2, 4:] == rest).all()
    if per_task:
        np.testing.assert_array_equal(mean[:2, :4], plane[0])
    else:
        rows = [np.concatenate([it.observations[:-1, :4] for it in store]) for store in stores]
        np.testing.assert_allclose(mean[0, :4], np.concatenate(rows).mean(0), rtol=1e-4, atol=1e-6)
        assert (mean[0, :4] == mean[3, :4]).all() and (std[0, :4] == std[3, :4]).all()


def test_pooled_moments_of_groups_of_different_sizes() -> None:
    means, stds = np.array([[1.0, 9, 9], [3, 5, 9]]), np.array([[0.0, 7, 7], [0, 2, 7]])
    mean, std = pooled_moments([10, 30], means, stds, [1, 2])
    np.testing.assert_allclose(mean, [2.5, 5, 0])
    np.testing.assert_allclose(std, [np.sqrt(0.75), 2, 0])


def test_statistics_of_all_data(stores: list[EpisodeStore]) -> None:
    alone, everything = describe_data(stores, ["towards-0"], pooled=True), describe_data(stores)
    np.testing.assert_array_equal(alone.normaliser(False, 0.01)[0], everything.normaliser(False, 0.01)[0][:1])


@pytest.mark.parametrize("prompts", [None, PromptSettings(length=3)])
def test_windows_of_narrow_stores_have_zeros_behind_them(
    paths: list[Path], stores: list[EpisodeStore], prompts: PromptSettings | None
) -> None:
    """The same windows as from one store with all tasks in their padded form."""

    def draw(chosen: list[EpisodeStore]) -> list:
        generator = np.random.default_rng(5)
        return TaskSampler(chosen, NAMES, 7, 4, generator, next_observations=True, prompts=prompts).draw().tensors

    for joined, recorded in zip(draw(stores), draw(open_stores(paths[2:])), strict=True):
        np.testing.assert_array_equal(joined, recorded)
