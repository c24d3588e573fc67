"""Worked examples of the methods that need the whole matrix of task gradients."""

import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.trainers.balancers import DBMTL, ExcessMTL, GradDrop, MoCo

A = torch.tensor([[1.0, 0], [-1, 1]], dtype=torch.float64)
B = torch.tensor([[4.0, 0], [-1, 1]], dtype=torch.float64)
C = torch.tensor([[1.0, 0], [0, 2]], dtype=torch.float64)


def test_moco() -> None:
    for rows, expected in ((A, [0.073223, 0.176777]), (B, [0.073223, 0.176777]), (C, [0.25, 0.25])):
        np.testing.assert_allclose(MoCo().aggregate(rows), expected, atol=1e-6)
    untracked = MoCo(beta=1.0, beta_decay=0.0)
    for rows in (A, C):
        untracked.aggregate(rows)
        torch.testing.assert_close(untracked.tracked, rows / (rows.norm(dim=1, keepdim=True) + 1e-8))
        assert untracked.simplex.sum().item() == pytest.approx(1) and (untracked.simplex > 0).all()


def test_dbmtl() -> None:
    for rows, expected in ((A, [0.414214, 1]), (B, [1.171573, 2.828427]), (C, [2, 2])):
        np.testing.assert_allclose(DBMTL(beta=0.0).aggregate(rows), expected, atol=1e-6)
    np.testing.assert_allclose(DBMTL().aggregate(A), [0.041421, 0.1], atol=1e-6)
    balancer, losses = DBMTL(), torch.tensor([2.0, 1.0], dtype=torch.float64)
    first = balancer.aggregate(B, losses)
    np.testing.assert_allclose(first, [0.058579, 0.141421], atol=1e-6)
    torch.testing.assert_close(balancer.aggregate(B, losses), 1.9 * first, rtol=1e-6, atol=0)
    plain = DBMTL(beta=0.0)
    torch.testing.assert_close(
        plain.aggregate(B, losses),
        plain.aggregate(torch.tensor([[10.0], [0.1]]) * B, losses * torch.tensor([10.0, 0.1])),
        rtol=1e-6,
        atol=1e-6,
    )  # scaling a loss changes nothing


def test_excess_risks() -> None:
    """Of A then C: squares (1, 0), (1, 1), then (2, 0), (1, 5); risks 1 and 2, then 1 / sqrt 2 and 4 / sqrt 5."""
    balancer = ExcessMTL(step_size=1.0, warmup=1)
    np.testing.assert_allclose(balancer.aggregate(A), A.mean(0))
    shares = torch.tensor([0.5**0.5, 2 / 5**0.5], dtype=torch.float64).softmax(0)
    torch.testing.assert_close(balancer.aggregate(C), shares @ C)
    np.testing.assert_allclose(shares, [0.453306, 0.546694], atol=1e-6)
    again = ExcessMTL(step_size=1.0, warmup=1)
    for rows in (A, C):
        found = again.aggregate(torch.tensor([[100.0], [0.01]]) * rows)
    torch.testing.assert_close(again.last_weights, shares), "scaling a loss changes no weight"
    assert found.isfinite().all()


def test_graddrop_keeps_one_sign() -> None:
    balancer = GradDrop()
    directions = torch.stack([balancer.aggregate(A) for _ in range(2000)])
    assert {tuple(row) for row in directions.tolist()} == {(1.0, 1.0), (-1.0, 1.0)}
    np.testing.assert_allclose(directions.mean(0), A.sum(0), atol=0.08)
    rows = torch.randn(5, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean = torch.stack([balancer.aggregate(rows) for _ in range(4000)]).mean(0)
    np.testing.assert_allclose(mean, rows.sum(0), atol=0.3)
    torch.testing.assert_close(GradDrop(leak=1.0).aggregate(rows), rows.sum(0))
    one = balancer.aggregate(rows)
    positive, negative = rows.clamp(min=0).sum(0), rows.clamp(max=0).sum(0)
    assert (torch.isclose(one, positive) | torch.isclose(one, negative)).all()


def test_graddrop_in_blocks_draws_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(3, 100)
    whole = GradDrop().aggregate(rows)
    monkeypatch.setattr("mtorl.trainers.balancers.graddrop.BLOCK", 7)
    assert torch.equal(GradDrop().aggregate(rows), whole)


@pytest.mark.parametrize(
    "make", [lambda: MoCo(beta=0), lambda: DBMTL(beta=1), lambda: GradDrop(leak=-1), lambda: ExcessMTL(0)]
)
def test_impossible_settings_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="expected"):
        make()
