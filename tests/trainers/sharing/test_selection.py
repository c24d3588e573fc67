import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mtorl.trainers.sharing.selection import SAMPLE, lowest


def expected(values: torch.Tensor, count: int) -> np.ndarray:
    return np.argsort(values.numpy(), kind="stable")[:count]


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 10_000), st.sampled_from(["plain", "ties", "infinite"]))
def test_of_few_values(size: int, count: int, seed: int, kind: str) -> None:
    count = min(count, size)
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    if kind == "ties":
        values = values.round()
    if kind == "infinite":
        values[values > 0] = torch.inf
    np.testing.assert_array_equal(lowest(values, count), expected(values, count))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from(["plain", "ties", "infinite", "sorted", "constant"]))
def test_of_many_values(seed: int, share: float, kind: str) -> None:
    """Also where the sample says nothing of the rest: sorted, nearly all infinite, all the same."""
    size = 4 * SAMPLE + seed % 1000
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    if kind == "ties":
        values = (8 * values).round()
    if kind == "infinite":
        values[values > -2] = torch.inf
    if kind == "sorted":
        values = values.sort(descending=True).values
    if kind == "constant":
        values.zero_()
    for count in (1, 100, int(share * size), size):
        np.testing.assert_array_equal(lowest(values, count), expected(values, count))


@pytest.mark.parametrize("spike", [0, 7, 123_457])
def test_a_few_low_values_that_the_sample_may_miss(spike: int) -> None:
    values = torch.ones(200_000)
    values[spike : spike + 3] = torch.tensor([-1.0, -3.0, -2.0])
    assert lowest(values, 3).tolist() == [spike + 1, spike + 2, spike]
