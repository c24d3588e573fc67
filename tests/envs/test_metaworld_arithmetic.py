"""What stands for functions of numpy, scipy and the package gives their bits."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mtorl.envs.metaworld.arithmetic import Rotation, fast_numpy, fast_rewards

pytestmark = pytest.mark.simulator
FAST = fast_numpy()


def same(one: Any, other: Any) -> bool:
    """Values of one type with the same bits."""
    return type(one) is type(other) and np.asarray(one).tobytes() == np.asarray(other).tobytes()


def numbers(count: int) -> list[float]:
    """Of all sizes that distances have, some of them negative or at a bound."""
    draw = np.random.default_rng(0)
    found = [*draw.uniform(-0.5, 1.5, count), *10 ** draw.uniform(-12, 3, count), 0.0, -0.0, 0.05, 0.02, 1.0]
    return [float(value) for value in found]


@pytest.mark.parametrize("kind", [float, np.float64])
@pytest.mark.parametrize("margin", [0.0, 0.2, 1, np.float64(1e-9), np.float64(0.0)])
def test_tolerance(kind: Callable[[float], Any], margin: float) -> None:
    from metaworld.utils import reward_utils

    for bounds in ((0, 0.05), (0.015, 0.05), (0.02, np.inf), (0.0, 0.0)):
        for value in map(kind, numbers(300)):
            expected = reward_utils.tolerance(value, bounds=bounds, margin=margin, sigmoid="long_tail")
            assert same(fast_rewards().tolerance(value, bounds=bounds, margin=margin, sigmoid="long_tail"), expected)


@pytest.mark.parametrize("options", [{"sigmoid": "gaussian"}, {"value_at_margin": 0.3, "sigmoid": "long_tail"}, {}])
def test_other_tolerances_are_the_packages_own(options: dict[str, Any]) -> None:
    from metaworld.utils import reward_utils

    for value in (0.3, np.float32(0.3), np.array([0.1, 0.3]), np.array(0.3), float("nan")):
        expected = reward_utils.tolerance(value, bounds=(0, 0.05), margin=0.2, **options)
        assert same(fast_rewards().tolerance(value, bounds=(0, 0.05), margin=0.2, **options), expected)


def test_impossible_tolerances_are_refused_as_by_the_package() -> None:
    with pytest.raises(ValueError, match="Lower bound"):
        fast_rewards().tolerance(0.3, bounds=(1, 0), sigmoid="long_tail")
    with pytest.raises(ValueError, match="non-negative"):
        fast_rewards().tolerance(0.3, margin=-1.0, sigmoid="long_tail")


def test_norm() -> None:
    draw = np.random.default_rng(0)
    vectors = [draw.normal(size=size) * 10 ** draw.uniform(-6, 2) for size in (2, 3, 4) for _ in range(1000)]
    matrix = draw.normal(size=(4, 3))
    for vector in (*vectors, matrix, matrix[:, 1], vectors[0][::-1], vectors[0].astype(np.float32), [3.0, 4.0], 2.0):
        assert same(FAST.linalg.norm(vector), np.linalg.norm(vector))
    assert same(FAST.linalg.norm(vectors[0], ord=2), np.linalg.norm(vectors[0], ord=2))
    assert same(FAST.linalg.norm(matrix, axis=1), np.linalg.norm(matrix, axis=1))
    assert same(FAST.linalg.norm(vectors[0], 1), np.linalg.norm(vectors[0], 1))


def test_hstack_and_clip() -> None:
    vector, matrix = np.arange(3.0), np.ones((2, 2))
    for arrays in ((vector, vector[:1]), (1.0, vector), (matrix, matrix), [vector, np.arange(2)]):
        assert same(FAST.hstack(arrays), np.hstack(arrays))
    values = [*numbers(100), float("nan"), -1.0, float("inf")]
    for value in [*map(np.float64, values), *map(np.float32, values), *values, vector]:
        assert same(FAST.clip(value, -1, 1), np.clip(value, -1, 1))
        assert same(FAST.clip(value, 0.0, 1.0), np.clip(value, 0.0, 1.0))


def test_rotation() -> None:
    from scipy.spatial import transform

    draw = np.random.default_rng(0)
    turns = [transform.Rotation.from_rotvec(draw.normal(size=3) * size).as_matrix() for size in (1e-6, 1, 3) * 100]
    for matrix in (*turns, np.eye(3), np.diag([1.0, -1, -1]), np.diag([-1.0, 1, -1]), np.diag([-1.0, -1, 1])):
        assert same(Rotation.from_matrix(matrix).as_quat(), transform.Rotation.from_matrix(matrix).as_quat())


def test_everything_else_is_numpy() -> None:
    assert FAST.array is np.array and FAST.linalg.inv is np.linalg.inv and FAST.pi == np.pi
    assert np.linalg.norm is not FAST.linalg.norm and np.hstack is not FAST.hstack
