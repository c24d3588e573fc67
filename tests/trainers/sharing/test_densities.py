"""How many weights each matrix keeps."""

import pytest
import torch

from mtorl.trainers.sharing.densities import densities, erk_densities


def test_erk_densities() -> None:
    """Of a transformer of width 256 with 6 blocks at 0.8: 4 matrices a block."""
    block = [torch.Size(sides) for sides in ((768, 256), (256, 256), (1024, 256), (256, 1024))]
    shares = erk_densities(block * 6, 0.8)
    sizes = [768 * 256, 256 * 256, 1024 * 256, 1024 * 256] * 6
    assert sum(share * size for share, size in zip(shares, sizes, strict=True)) / sum(sizes) == pytest.approx(0.8)
    assert shares[1] == 1.0 and shares[0] / shares[2] == pytest.approx((1024 / 768 / 256) / (1280 / 1024 / 256))
    assert erk_densities([torch.Size((4, 4))], 0.5) == [0.5]
    assert erk_densities([torch.Size((4, 4)), torch.Size((400, 400))], 1.0) == [1.0, 1.0]


def test_uniform_densities() -> None:
    assert densities([torch.Size((4, 4)), torch.Size((400, 400))], 0.3, "uniform") == [0.3, 0.3]
