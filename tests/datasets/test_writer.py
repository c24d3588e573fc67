import dataclasses
from pathlib import Path

import numpy as np
import pytest
from conftest import episode, write

from mtorl import InputError
from mtorl.datasets.statistics import QUANTILES, returns_to_go
from mtorl.datasets.store import Episode, EpisodeStore


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
    ours = [episode("a", 5, 0), episode("a", 1, 2)]
    task = small.manifest["tasks"][0]
    states = np.concatenate([one.observations[:-1] for one in ours])
    np.testing.assert_allclose(task["observation_mean"], states.mean(0), rtol=1e-5)
    np.testing.assert_allclose(task["observation_std"], states.std(0), rtol=1e-5)
    returns = [one.rewards.sum() for one in ours]
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
