"""The smallest of millions of numbers: exact, the same on every device, in a few passes over the memory."""

import numpy as np
import torch
from torch import Tensor

SAMPLE = 1 << 13
"""Numbers that are looked at to guess a threshold."""


def lowest(values: Tensor, count: int) -> Tensor:
    """Indices of the smallest values, ascending; of equal ones those with the lowest indices.

    A sample gives a threshold that a few more values than wanted lie below; only these are sorted. `torch.topk` takes
    longer, and does not say which of equal values it returns.

    Args:
        values: `[M]`, without NaN; infinite ones come last.
        count: How many; at most M.

    Returns:
        int64 `[count]`.
    """
    size = len(values)
    if count == 0:
        return torch.empty(0, dtype=torch.int64, device=values.device)
    if size <= SAMPLE:
        return values.sort(stable=True).indices[:count]
    stride = size // SAMPLE
    sample = values[::stride].sort().values
    expected = count * len(sample) / size
    place = int(expected + 6 * expected**0.5 + 8)  # six standard deviations above
    while place < len(sample):
        candidates = _up_to(values, sample[place])
        if len(candidates) >= count:
            return candidates[values[candidates].sort(stable=True).indices[:count]]
        place = 4 * place
    return values.sort(stable=True).indices[:count]


def _up_to(values: Tensor, threshold: Tensor) -> Tensor:
    """Indices of the values that are not above a threshold, ascending."""
    if values.is_cuda:
        return (values <= threshold).nonzero().flatten()
    return torch.from_numpy(np.flatnonzero(values.numpy() <= threshold.numpy()))  # NumPy searches faster than torch
