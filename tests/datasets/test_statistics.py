import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mtorl.datasets.statistics import RunningMoments, pooled_moments, returns_to_go


@given(st.lists(st.integers(0, 7), min_size=1, max_size=6), st.integers(0, 1000))
def test_moments_of_chunks_equal_those_of_the_whole(sizes: list[int], seed: int) -> None:
    rows = np.random.default_rng(seed).normal(3.0, 2.0, (sum(sizes), 4))
    moments, start = RunningMoments(4), 0
    for size in sizes:
        moments.add(rows[start : start + size])
        start += size
    assert moments.count == len(rows)
    if len(rows):
        np.testing.assert_allclose(moments.mean, rows.mean(0), atol=1e-12)
        np.testing.assert_allclose(moments.std, rows.std(0), atol=1e-9)


def test_pooled_moments_of_groups() -> None:
    groups = [np.random.default_rng(seed).normal(seed, 1 + seed, (10 + seed, 3)) for seed in range(4)]
    mean, std = pooled_moments(
        [len(g) for g in groups], np.array([g.mean(0) for g in groups]), np.array([g.std(0) for g in groups])
    )
    np.testing.assert_allclose(mean, np.concatenate(groups).mean(0))
    np.testing.assert_allclose(std, np.concatenate(groups).std(0))


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=30))
def test_returns_to_go_equal_a_plain_loop(rewards: list[float]) -> None:
    expected = [sum(rewards[step:]) for step in range(len(rewards))]
    np.testing.assert_allclose(returns_to_go(np.array(rewards, np.float32)), expected, rtol=1e-5, atol=1e-4)


def test_returns_to_go_of_three_ones() -> None:
    assert returns_to_go(np.ones(3, np.float32)).tolist() == [3, 2, 1]
