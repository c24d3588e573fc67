from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import episode, write
from scipy.stats import binomtest, chisquare

from mtorl import InputError
from mtorl.datasets.sampler import SamplingSettings, TaskSampler
from mtorl.datasets.shares import SourceShares
from mtorl.datasets.store import EpisodeStore

NAMES = ("a", "b")


@pytest.fixture
def pair(tmp_path: Path) -> list[EpisodeStore]:
    """The first has 4 episodes of a and one of b, the second 12 of a; they are told apart by the sign of rewards."""
    first = write(tmp_path / "first", [*(episode("a", 3 + seed, seed) for seed in range(4)), episode("b", 6)])
    rest = [episode("a", 2 + seed % 7, 10 + seed) for seed in range(12)]
    for one in rest:
        one.rewards[:] *= -1
    return [first, write(tmp_path / "second", rest)]


def sampler(stores: list[EpisodeStore], shares: list[float] | None, windows: int = 4000, **options) -> TaskSampler:
    return TaskSampler(stores, NAMES, windows, 1, np.random.default_rng(0), shares=shares, **options)


@pytest.mark.parametrize("unit", ["step", "episode"])
@pytest.mark.parametrize("top", [1.0, 0.5])
def test_windows_come_from_the_data_sets_in_their_shares(pair: list[EpisodeStore], unit: str, top: float) -> None:
    draws = sampler(pair, [7, 3], sampling=SamplingSettings(top=top, unit=unit)).draw()  # type: ignore[arg-type]
    from_first = (draws.rewards[0] > 0).sum()
    assert binomtest(int(from_first), 4000, 0.7).pvalue > 1e-4
    assert (draws.rewards[1] > 0).all(), "a task that only one data set has takes all from there"
    values, counts = draws.returns_to_go[0].flatten().unique(return_counts=True)
    for store, sign in zip(pair, (1, -1), strict=True):
        episodes = [one for one in store if one.task == "a"]
        episodes.sort(key=lambda one: -float(one.rewards.sum()))
        best = episodes[: round(top * len(episodes))]  # of each data set
        mine = counts[values * sign > 0]
        expected = [1 / (len(one) if unit == "episode" else 1) for one in best for _ in range(len(one))]
        assert len(mine) == len(expected), "every step is drawn, and no other"
        if unit == "step":
            assert chisquare(mine.numpy()).pvalue > 1e-4


def test_shares_of_batches_with_few_tasks(pair: list[EpisodeStore]) -> None:
    draws = sampler(pair, [0.2, 0.8], 2000, tasks_per_batch=1, order="round_robin")
    first, second = draws.draw(), draws.draw()
    assert first.task_ids.tolist() == [0] and second.task_ids.tolist() == [1]
    assert binomtest(int((first.rewards > 0).sum()), 2000, 0.2).pvalue > 1e-4
    assert (second.rewards > 0).all()


@pytest.mark.parametrize("unit", ["step", "episode"])
def test_one_data_set_with_all_of_the_shares_is_drawn_as_without(pair: list[EpisodeStore], unit: str) -> None:
    settings = SamplingSettings(unit=unit)  # type: ignore[arg-type]
    one, other = (sampler(pair[:1], shares, 50, sampling=settings) for shares in (None, [0.3]))
    for _ in range(5):
        for left, right in zip(one.draw().tensors, other.draw().tensors, strict=True):
            assert torch.equal(left, right)
    assert one.state_dict() == other.state_dict()


def test_a_sampler_with_shares_goes_on_where_it_was(pair: list[EpisodeStore]) -> None:
    one, other = sampler(pair, [1, 1], 50), sampler(pair, [1, 1], 50)
    one.draw()
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.draw().observations, other.draw().observations)


def test_a_line_of_three_data_sets_is_walked_as_the_shares_say() -> None:
    line = SourceShares(np.array([[2, 0, 4], [0, 3, 0], [1, 1, 1]]), [0.5, 0.3, 0.5])
    draws = np.array([[0.0, 0.24, 0.26, 0.5, 0.7, 1 - 2**-53]] * 3)
    assert line.places(np.array([0, 1, 2]), draws).tolist() == [
        [0, 0, 1, 2, 3, 5],  # half of the draws on each of two data sets
        [0, 0, 0, 1, 2, 2],
        [0, 0, 0, 1, 2, 2],  # 5 : 3 : 5
    ]
    draw = np.random.default_rng(0)
    for _ in range(200):
        sizes, shares = draw.integers(0, 4, (5, 6)), draw.uniform(1e-6, 1, 6)
        sizes[:, draw.integers(6)] += 1
        places = SourceShares(sizes, shares.tolist()).places(np.arange(5), np.tile(draws[0], (5, 1)))
        assert (places >= 0).all() and (places < sizes.sum(1, keepdims=True)).all()
        assert (np.diff(places) >= 0).all()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ([0.5], r"shares are \[0.5\]; expected 2, one for each data set"),
        ([0.5, 0.3, 0.2], "expected 2"),
        ([1.0, 0.0], "expected positive numbers"),
        ([1.0, -1.0], "expected positive numbers"),
        ([1.0, float("nan")], "expected positive numbers"),
    ],
)
def test_shares_that_make_no_sense_are_refused(pair: list[EpisodeStore], shares: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sampler(pair, shares)
