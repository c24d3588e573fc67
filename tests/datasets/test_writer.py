import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import episode, write

from mtorl import InputError
from mtorl.datasets.statistics import QUANTILES, returns_to_go
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter


def test_episodes_come_back_as_they_were_written(small: EpisodeStore) -> None:
    originals = [episode("a", 5, 0), episode("b", 3, 1), episode("a", 1, 2)]
    assert len(small) == 3
    for original, stored in zip(originals, small, strict=True):
        for field in dataclasses.fields(Episode):
            np.testing.assert_array_equal(getattr(stored, field.name), getattr(original, field.name))
    for number, original in enumerate(originals):
        steps = slice(small.starts[number], small.starts[number + 1])
        np.testing.assert_array_equal(small.returns_to_go[steps], returns_to_go(original.rewards))


def test_manifest_statistics(small: EpisodeStore) -> None:
    episodes = [episode("a", 5, 0), episode("a", 1, 2)]
    task = small.manifest["tasks"][0]
    states = np.concatenate([one.observations[:-1] for one in episodes])
    np.testing.assert_allclose(task["observation_mean"], states.mean(0), rtol=1e-5)
    np.testing.assert_allclose(task["observation_std"], states.std(0), rtol=1e-5)
    returns = [one.rewards.sum() for one in episodes]
    np.testing.assert_allclose(task["return_quantiles"], np.quantile(returns, QUANTILES), rtol=1e-5)
    assert (task["episodes"], task["steps"], task["success_rate"], task["success_last_rate"]) == (2, 6, 0.5, 0.0)


def test_the_same_episodes_give_the_same_bytes(tmp_path: Path) -> None:
    stores = [write(tmp_path / name, [episode()]) for name in ("one", "two")]
    for path in sorted(stores[0].path.iterdir()):
        assert path.read_bytes() == (stores[1].path / path.name).read_bytes(), path.name
    assert not [path for path in stores[0].path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((5, 3), np.float32)}, "5 actions and 5 observations; expected 6"),
        ({"rewards": np.zeros(4, np.float32)}, "5 actions but 4 rewards"),
        ({"actions": np.full((5, 2), 1.5, np.float32)}, r"reach 1.5; expected \[-1, 1\]"),
        ({"rewards": np.full(5, np.nan, np.float32)}, "rewards of a hold NaN"),
        ({"observations": np.zeros((6, 4), np.float32)}, r"dimensions \(4, 2\); expected \(3, 2\)"),
        ({"task": "c"}, "names the task 'c'"),
    ],
)
def test_malformed_episodes_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write(tmp_path / "x", [dataclasses.replace(episode(), **changes)])
    assert not (tmp_path / "x" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rewards": np.zeros((5, 2))}, r"rewards of .* have the shape \(5, 2\); expected \(5,\)"),
        ({"success": np.zeros((5, 2), bool)}, r"success of .* have the shape \(5, 2\); expected \(5,\)"),
        ({"rewards": np.float32(1)}, "5 actions but 0 rewards"),
        ({"actions": np.zeros((5, 2, 2))}, r"actions of .* have the shape \(5, 2, 2\); expected \(5, 2\)"),
        ({"actions": np.zeros(5)}, r"actions of .* have the shape \(5,\); expected \(5, 2\)"),
        ({"actions": np.zeros((0, 2))}, "no steps"),
        ({"observations": np.zeros((6, 3, 1))}, r"observations of .* have the shape \(6, 3, 1\); expected \(6, 3\)"),
        ({"observations": np.zeros(6)}, r"observations of .* have the shape \(6,\); expected \(6, 3\)"),
        ({"observations": np.float32(1)}, "5 actions and 0 observations"),
        ({"rewards": np.zeros(5, complex)}, "rewards of a are of type complex128; expected real numbers"),
        ({"rewards": np.ma.masked_equal([0.0, 1, 1, 1, 1], 0)}, "rewards of a have masked entries"),
        ({"rewards": np.array([None] * 5)}, "rewards of a are of type object"),
        ({"rewards": [[1.0], [1.0, 2.0], 1.0, 1.0, 1.0]}, "rewards of a cannot be read as an array"),
        ({"rewards": torch.ones(5, requires_grad=True)}, "rewards of a cannot be read as an array.*grad"),
        ({"rewards": np.array(["1"] * 5)}, "rewards of a are of type <U1"),
        ({"rewards": None}, "rewards of a are of type object"),
        ({"observations": np.full((6, 3), 1e39)}, r"observations of a hold 1e\+39, infinity in single precision"),
        ({"rewards": np.full(5, -1e39)}, r"rewards of a hold -1e\+39, infinity in single precision"),
        ({"rewards": np.full(5, 3e38)}, "rewards of an episode of a sum to more than single precision can hold"),
        ({"goal": None}, r"goal of an episode of a is None; expected a number .*-1: unknown"),
        ({"goal": 1.5}, "goal of an episode of a is 1.5"),
        ({"goal": -2}, "goal is -2"),
        ({"goal": 2**31}, "goal is 2147483648"),
        ({"seed": 10**20}, "seed is 1000"),
        ({"noise": float("nan")}, "noise is nan"),
        ({"noise": "loud"}, "noise of an episode of a is 'loud'"),
        ({"random": 1.5}, "random is 1.5"),
    ],
)
def test_what_would_be_stored_flat_or_wrong_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write(tmp_path / "x", [dataclasses.replace(episode(), **changes)])
    assert not list((tmp_path / "x").iterdir())


@pytest.mark.parametrize("name", ["success", "terminated", "truncated"])
@pytest.mark.parametrize(
    "values", [[float("nan")] * 5, [0.3] * 5, [-1] * 5, [2, 0, 0, 0, 0], ["False"] * 5, [None] * 5, [1j] * 5]
)
def test_what_is_no_flag_is_refused(tmp_path: Path, name: str, values: list) -> None:
    with pytest.raises(InputError, match=f"{name} flags of a (hold|are of type)"):
        write(tmp_path / "x", [dataclasses.replace(episode(), **{name: np.array(values)})])


@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        torch.from_numpy,
        np.ma.asarray,
        np.asfortranarray,
        lambda values: values.astype(np.float64),
        lambda values: values[::-1].copy()[::-1],
        lambda values: values if values.ndim == 2 else values[:, None],
        lambda values: values if values.dtype != bool else values.astype(int),
    ],
)
def test_what_can_be_converted_exactly_is_taken(tmp_path: Path, convert: Callable) -> None:
    """Lists, tensors, other memory layouts, flags as exact numbers, and columns `[L, 1]`."""
    columns = ("observations", "actions", "rewards", "success", "terminated", "truncated")
    converted = dataclasses.replace(episode(), **{name: convert(getattr(episode(), name)) for name in columns})
    store, expected = write(tmp_path / "x", [converted, episode("b")]), write(tmp_path / "y", [episode(), episode("b")])
    for path in sorted(expected.path.glob("*.npy")):
        assert path.read_bytes() == (store.path / path.name).read_bytes(), path.name
    store.verify()


def test_no_episodes_are_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no episodes were given .*expected at least one"):
        write(tmp_path / "x", [])
    assert not list((tmp_path / "x").iterdir())


def test_episodes_end_at_the_horizon(tmp_path: Path) -> None:
    write(tmp_path / "x", [episode(length=9)])
    with pytest.raises(InputError, match="an episode of a has 10 steps, more than the horizon of 9"):
        write(tmp_path / "y", [episode(length=10)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_names": ("a", "a")}, "task_names names 'a' twice"),
        ({"task_names": ()}, "task_names is a list of 0"),
        ({"dimensions": (0, 2)}, "observation_dim is 0"),
        ({"horizon": 9.5}, "horizon is 9.5"),
        ({"suite": {}}, "suite lacks"),
        ({"source": {"x": float("nan")}}, "source.x is nan"),
        ({"versions": {"x": {1}}}, "versions.x is a set; expected a plain value"),
    ],
)
def test_what_a_manifest_cannot_say_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict, message: str
) -> None:
    right = {
        "suite": {"class_path": "some.Suite", "init_args": {}},
        "task_names": ("a",),
        "dimensions": (3, 2),
        "horizon": 9,
        "versions": {},
        "source": {},
    }
    StoreWriter(tmp_path / "x", **right)
    with pytest.raises(InputError, match=message):
        StoreWriter(tmp_path / "x", **{**right, **changes})
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"returns_only": ["a"]}, "success at step 2, but its task is among those whose data know no success"),
        ({"own_dimensions": [(2, 2)]}, "observations of an episode of a are not zero beyond the 2 dimensions"),
        ({"own_dimensions": [(3, 1)]}, "actions of an episode of a are not zero beyond the 1 dimensions"),
    ],
)
def test_episodes_are_what_is_said_of_their_task(tmp_path: Path, claims: dict, message: str) -> None:
    writer = StoreWriter(tmp_path / "x", {"class_path": "a.B", "init_args": {}}, ("a",), (3, 2), 9, {}, {}, **claims)
    with pytest.raises(InputError, match=message):
        writer.write([episode("a", 5)])
    assert not (tmp_path / "x" / "manifest.json").exists()
