"""The Gramian of task gradients, which balancers see."""

import pytest
import torch

from mtorl.trainers.gradients import BLOCK, FEW, TaskGradients, gramian


def test_the_gramian_is_symmetric_and_in_float64() -> None:
    rows = torch.randn(7, 1000)
    gradients = TaskGradients(torch.ones(7), rows, torch.arange(7))
    assert gradients.gramian.dtype == torch.float64
    assert torch.equal(gradients.gramian, gradients.gramian.T)
    torch.testing.assert_close(gradients.gramian, rows.double() @ rows.double().T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("columns", [0, 1, FEW, FEW + 1, FEW + BLOCK + 7, 700_000])
def test_the_gramian_is_exact_to_a_hundred_millionth(columns: int) -> None:
    rows = torch.randn(5, columns, generator=torch.Generator().manual_seed(columns)) + 0.5
    rows[3] = rows[2] * (1 + 1e-3)  # nearly parallel
    rows[4] *= 1e-12
    exact = rows.double() @ rows.double().T
    norms = exact.diag().sqrt()
    assert ((gramian(rows) - exact).abs() <= 1e-8 * norms[:, None] * norms).all()
