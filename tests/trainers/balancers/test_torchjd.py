"""The same numbers as TorchJD, where both have the method and its solver is exact enough to compare."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mtorl import InputError
from mtorl.runs.training import train
from mtorl.trainers.balancers import (
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    DualProj,
    GradDrop,
    GradientAggregation,
    PCGrad,
    TorchJD,
    UPGrad,
)

torchjd = pytest.importorskip("torchjd.aggregation")


def matrices() -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [
        torch.randn(tasks, size, dtype=torch.float64, generator=draw) * scale
        for tasks, size in ((2, 5), (3, 5), (6, 20), (20, 50))
        for scale in (0.1, 1.0, 10.0)
    ]


def exact():  # type: ignore[no-untyped-def]
    """Without the library's ridge of 1e-4."""
    return pytest.importorskip("torchjd.linalg").QuadprogProjector(reg_eps=1e-10, norm_eps=1e-10)


def direction(balancer: GradientAggregation, rows: Tensor) -> Tensor:
    return balancer.weights(rows @ rows.T) @ rows


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        (MGDA, lambda: torchjd.MGDA(epsilon=1e-12, max_iters=20000), 1e-3),
        (AlignedMTL, torchjd.AlignedMTL, 1e-9),
        (IMTLG, torchjd.IMTLG, 1e-7),
        (ConFIG, torchjd.ConFIG, 1e-7),
        (UPGrad, lambda: torchjd.UPGrad(projector=exact()), 1e-5),
        (DualProj, lambda: torchjd.DualProj(projector=exact()), 1e-5),
    ],
    ids=lambda it: getattr(it, "__name__", ""),
)
def test_the_same_directions(ours: type, theirs, tolerance: float) -> None:  # type: ignore[no-untyped-def]
    for rows in matrices():
        expected = theirs()(rows)
        torch.testing.assert_close(direction(ours(), rows), expected, rtol=0, atol=tolerance * float(rows.norm()))


def test_cagrad() -> None:
    pytest.importorskip("cvxpy")
    for rows in matrices():
        expected = torchjd.CAGrad(c=0.5)(rows)
        torch.testing.assert_close(direction(CAGrad(0.5), rows), expected, rtol=0, atol=1e-3 * float(rows.norm()))


def test_pcgrad_with_the_same_orders() -> None:
    """Two tasks have one order each; more are compared in the mean."""
    for rows in matrices():
        if len(rows) == 2:
            torch.testing.assert_close(direction(PCGrad(), rows), torchjd.PCGrad()(rows))
        elif len(rows) == 3:
            ours, theirs = PCGrad(), torchjd.PCGrad()
            one = torch.stack([direction(ours, rows) for _ in range(1000)])
            other = torch.stack([theirs(rows) for _ in range(1000)])
            error = (one.var(0) / 1000 + other.var(0) / 1000).sqrt() + 1e-9
            assert ((one.mean(0) - other.mean(0)).abs() / error).max() < 5


def test_graddrop_in_the_mean() -> None:
    rows = matrices()[4]
    ours = torch.stack([GradDrop().aggregate(rows)])
    assert ours.shape[1] == rows.shape[1]
    balancer = GradDrop()
    one = np.stack([balancer.aggregate(rows).numpy() for _ in range(2000)]).mean(0)
    other = np.stack([torchjd.GradDrop()(rows).numpy() for _ in range(2000)]).mean(0)
    np.testing.assert_allclose(one, other, atol=0.2)


def test_the_adapter_gives_the_aggregators_direction() -> None:
    for rows in matrices():
        assert torch.equal(TorchJD("ConFIG").aggregate(rows), torchjd.ConFIG()(rows))


def test_random_aggregators_draw_from_the_balancers_stream() -> None:
    rows, before = matrices()[4], torch.get_rng_state()
    one, other = TorchJD("Random"), TorchJD("Random")
    first = one.aggregate(rows)
    assert torch.equal(first, other.aggregate(rows)) and not torch.equal(first, one.aggregate(rows))
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_aggregators_and_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"no aggregator 'Fairest'; it has .*UPGrad"):
        TorchJD("Fairest")
    with pytest.raises(InputError, match="no aggregator 'Aggregator'"):
        TorchJD("Aggregator")
    with pytest.raises(InputError, match=r"CAGrad cannot be made with options \{\}"):
        TorchJD("CAGrad")


def test_a_state_that_cannot_be_restored_is_not_resumed_unless_forced(train_options: dict) -> None:
    run = train(**{**train_options, "balancer": "TorchJD", "balancer.name": "GradVac"})
    run.checkpoints().file(30).unlink()
    with pytest.raises(InputError, match=r"has a state that cannot be restored.*--balancer\.allow_inexact_resume true"):
        train(resume=run.folder)
    train(resume=run.folder, balancer__allow_inexact_resume=True)
    assert run.checkpoints().steps()[-1] == 30
