"""The few functions of numpy, scipy and the package that rewards are made of, for single numbers and short vectors.

Each gives the bits of what it stands for, and hands on to it whatever it was not written for. What that takes:
vectors are still multiplied by numpy, which may fuse a product and a sum in one rounding; squares are powers, as the
package writes them, of the same C library; and exponentials stay numpy's own.
"""

import math
import types
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOAT, _CONTIGUOUS = np.dtype(np.float64), (8,)
_STEEPNESS = {0.1: np.sqrt(1 / 0.1 - 1).item()}
"""The factor of `long_tail` for each value at the margin: the package uses one."""


@cache
def fast_numpy() -> types.ModuleType:
    """A module that is numpy but for `linalg.norm`, `hstack` and `clip`."""
    module = types.ModuleType("numpy", np.__doc__)
    module.__dict__.update(vars(np))
    linalg = types.ModuleType("numpy.linalg", np.linalg.__doc__)
    linalg.__dict__.update(vars(np.linalg), norm=norm)
    module.__dict__.update(linalg=linalg, hstack=hstack, clip=clip)
    return module


@cache
def fast_rewards() -> types.ModuleType:
    """The package's `reward_utils` but for `tolerance`."""
    from metaworld.utils import reward_utils

    module = types.ModuleType(reward_utils.__name__, reward_utils.__doc__)
    module.__dict__.update(vars(reward_utils), tolerance=_tolerance_in_place_of(reward_utils.tolerance))
    return module


def norm(x: Any, ord: Any = None, *rest: Any, **options: Any) -> Any:
    """`np.linalg.norm`; its shortcut for the Euclidean length of a vector, without what leads there."""
    if (
        (ord is None or ord == 2)
        and not rest
        and not options
        and type(x) is np.ndarray
        and x.dtype is _FLOAT
        and x.strides == _CONTIGUOUS
    ):
        return np.float64(math.sqrt(x.dot(x)))
    return np.linalg.norm(x, ord, *rest, **options)


def hstack(arrays: Any, **options: Any) -> NDArray[Any]:
    """`np.hstack`, without making vectors of vectors."""
    if not options and all(type(array) is np.ndarray and array.ndim == 1 for array in arrays):
        return np.concatenate(arrays)
    return np.hstack(arrays, **options)


def clip(a: Any, *bounds: Any, **options: Any) -> Any:
    """`np.clip`; a single number that lies within its bounds is given back."""
    if len(bounds) == 2 and not options and type(a) in (np.float64, np.float32) and bounds[0] < a < bounds[1]:
        return a
    return np.clip(a, *bounds, **options)


def _tolerance_in_place_of(stock: Any) -> Any:
    """The package's `tolerance`, for a single number and the sigmoid of nearly all rewards."""

    def tolerance(
        x: Any,
        bounds: Any = (0.0, 0.0),
        margin: Any = 0.0,
        sigmoid: str = "gaussian",
        value_at_margin: float = 0.1,
    ) -> Any:
        lower, upper = bounds
        if (
            sigmoid == "long_tail"
            and value_at_margin in _STEEPNESS
            and (type(x) is float or type(x) is np.float64)
            and lower <= upper
            and margin >= 0
        ):
            x = float(x)
            if lower <= x <= upper:
                return 1.0
            if margin == 0:
                return 0.0
            distance = (lower - x if x < lower else x - upper) / float(margin)
            return 1 / ((distance * _STEEPNESS[value_at_margin]) ** 2 + 1)
        return stock(x, bounds, margin, sigmoid, value_at_margin)

    return tolerance


class Rotation:
    """The one use that the package makes of scipy's Rotation: a rotation matrix to a quaternion (x, y, z, w)."""

    def __init__(self, quaternion: NDArray[np.float64]) -> None:
        self._quaternion = quaternion

    @staticmethod
    def from_matrix(matrix: NDArray[np.float64]) -> "Rotation":
        """A rotation from its matrix `[3, 3]`."""
        (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
        trace = a + e + i
        largest = max(a, e, i, trace)
        # The order of these cases and of the sums is scipy's, so that the last bits agree.
        if a == largest:
            x, y, z, w = 1 - trace + 2 * a, d + b, g + c, h - f
        elif e == largest:
            x, y, z, w = d + b, 1 - trace + 2 * e, h + f, c - g
        elif i == largest:
            x, y, z, w = g + c, h + f, 1 - trace + 2 * i, d - b
        else:
            x, y, z, w = h - f, c - g, d - b, 1 + trace
        norm = math.sqrt(x * x + y * y + z * z + w * w)
        return Rotation(np.array([x / norm, y / norm, z / norm, w / norm]))

    def as_quat(self) -> NDArray[np.float64]:
        """The quaternion `[4]`."""
        return self._quaternion
