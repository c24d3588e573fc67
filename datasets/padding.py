"""Zeros behind numbers, where tasks of different dimensions stand side by side."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def padded(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Values `[..., n]` with zeros behind them, `[..., size]`; the same array where nothing is missing."""
    if values.shape[-1] == size:
        return values
    wide = np.zeros((*values.shape[:-1], size), dtype=values.dtype)
    wide[..., : values.shape[-1]] = values
    return wide
