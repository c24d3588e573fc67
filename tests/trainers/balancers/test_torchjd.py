"""The same numbers as TorchJD, where both have the method and its solver is exact enough to compare."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mtorl import InputError
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.balancers import (
    COSMOS,
    IMTLG,
    MGDA,
    PBI,
    AlignedMTL,
    Averaged,
    CAGrad,
    ConFIG,
    DualProj,
    ExcessMTL,
    GradDrop,
    GradientAggregation,
    MoDo,
    PCGrad,
    SDMGrad,
    TorchJD,
    UPGrad,
)
from mtorl.trainers.balancers.torchjd import kinds as everything
from mtorl.trainers.logs import read_log

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


def test_weights_from_two_draws_over_many_batches() -> None:
    """In our units of the products, which the steps of the weights are given in."""
    draw = torch.Generator().manual_seed(1)
    for tasks in (2, 3, 8):
        ours, theirs = MoDo(gamma=0.2, rho=0.0), torchjd.MoDoWeighting(gamma=0.2, rho=0.0)
        directed, other = SDMGrad(lr=0.3, iterations=5), torchjd.SDMGradWeighting(lr=0.3, n_iter=5)
        for _ in range(6):
            one, two = torch.randn(2, tasks, 12, dtype=torch.float64, generator=draw) + 0.5
            products = one @ two.T
            products /= products.abs().sum(1).max()
            torch.testing.assert_close(ours.weights(products), theirs(products))
            other.lr = 0.3 * float(products.diagonal().clamp(min=0).sqrt().mean()) ** 2  # it divides by that
            torch.testing.assert_close(directed.weights(products), other(products), rtol=1e-5, atol=1e-6)


def test_excess_risks_over_many_batches() -> None:
    for warmup in (1, 3):
        ours, theirs = ExcessMTL(0.7, warmup), torchjd.ExcessMTL(0.7, n_warmup_steps=warmup)
        for rows in (it for it in matrices() if it.shape == (3, 5)):
            for scale in (100.0, 50.0, 10.0):  # beside which its ridge is nothing
                expected = theirs(scale * rows)
                torch.testing.assert_close(ours.aggregate(scale * rows), expected, rtol=1e-4, atol=1e-4)


def test_averages_of_weights() -> None:
    ours, theirs = Averaged(UPGrad(), 0.7), torchjd.CRMOGMWeighting(torchjd.UPGradWeighting(projector=exact()), 0.7)
    for rows in (it for it in matrices() if it.shape == (3, 5)):
        expected = theirs(rows @ rows.T)
        torch.testing.assert_close(ours.weights(rows @ rows.T), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("preference", [(1.0, 1.0, 1.0), (1.0, 2.0, 3.0)])
def test_scalarisations_with_a_preference(preference: tuple[float, ...]) -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    values = torch.tensor([0.5, 1.1, 1.4], dtype=torch.float64, requires_grad=True)
    unit = torch.tensor(preference, dtype=torch.float64) / sum(preference)
    for ours, theirs in (
        (PBI(preference, 0.3), scalarization.PBI(0.3, unit)),
        (COSMOS(preference, 0.2), scalarization.COSMOS(0.2, unit)),
    ):
        (expected,) = torch.autograd.grad(theirs(values), values)
        torch.testing.assert_close(ours.weights(values, torch.arange(3)), expected, rtol=1e-5, atol=1e-6)


NEEDED: dict[str, dict] = {
    "CAGrad": {"c": 0.5},
    "CAGradWeighting": {"c": 0.5},
    "Constant": {"weights": [1, 2, 3]},
    "ConstantWeighting": {"weights": [1, 2, 3]},
    "CRMOGMWeighting": {"weighting": {"name": "CRMOGMWeighting", "options": {"weighting": "UPGradWeighting"}}},
    "FairGrad": {"alpha": 1.0},
    "FairGradWeighting": {"alpha": 1.0},
    "Krum": {"n_byzantine": 0},
    "KrumWeighting": {"n_byzantine": 0},
    "NashMTL": {"n_tasks": 3},
    "TrimmedMean": {"trim_number": 1},
    "COSMOS": {"lambda_": 0.1, "weights": [1, 2, 1]},
    "FAMO": {"shape": 3},
    "IMTLL": {"shape": 3},
    "PBI": {"theta": 0.1, "weights": [1, 2, 1]},
    "STCH": {"mu": 0.5},
    "UW": {"shape": 3},
    "scalarization.Constant": {"weights": [1, 2, 3]},
}
"""Arguments that constructors of the package need."""
FULL = ("CAGrad", "CAGradWeighting", "NashMTL")
"""What needs more packages than torchjd."""
LOSSES = sorted(
    {
        "COSMOS",
        "FAMO",
        "GeometricMean",
        "IMTLL",
        "PBI",
        "STCH",
        "UW",
        *map("scalarization.{}".format, ["Constant", "Mean", "Random", "Sum"]),
    }
)
NAMES = sorted(set(everything()) - {"MoDoWeighting", "SDMGradWeighting", "DWA"})


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(LOSSES)))
def test_the_adapter_reaches_every_aggregator_and_weighting(name: str) -> None:
    if name in FULL:
        pytest.importorskip("cvxpy")
    rows = matrices()[4].float()
    balancer = TorchJD(name, NEEDED.get(name))
    found = balancer.aggregate(rows)
    assert found.shape == (5,) and found.dtype == torch.float32 and found.isfinite().all()
    if name.endswith("Weighting"):
        assert balancer.last_weights is not None
        if name.removesuffix("Weighting") in NAMES:
            named = name.removesuffix("Weighting")
            assert torch.allclose(found, TorchJD(named, NEEDED.get(named)).aggregate(rows), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_adapter_reaches_every_scalarizer(name: str, train_options: dict) -> None:
    options = train_options | {"balancer": "TorchJD", "balancer.name": name, "dtype": "float64"}
    options |= {"balancer.options": NEEDED[name]} if name in NEEDED else {}
    options |= {"schedule": {"steps": 60, "evaluate_every": 0, "save_every": 30, "log_every": 20}}
    options |= {"optimizer": {"lr": 0.01, "warmup": 0}}
    run = train(**options)
    rows = [row for row in read_log(run.folder) if row["kind"] == "training"]
    assert rows[-1]["loss"] < rows[0]["loss"] and f"policy/weight/{run.spec.task_names[0]}" in rows[0]
    learned = [key for key in run.checkpoints().load()["balancers"]["policy"] if key.startswith("learned")]
    assert bool(learned) == (name in ("IMTLL", "UW"))
    if learned:
        assert run.checkpoints().load()["balancers"]["policy"][learned[0]].abs().min() > 0, "they learn"


def test_what_needs_more_than_a_batch_is_refused() -> None:
    for name, remedy in (("MoDoWeighting", "MoDo"), ("SDMGradWeighting", "SDMGrad"), ("DWA", "DWA")):
        with pytest.raises(InputError, match=f"needs .*use --balancer {remedy}"):
            TorchJD(name)


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


@pytest.mark.parametrize("name", ["GradVac", "PCDWeighting", "ExcessMTL", "CRMOGMWeighting", "UW"])
def test_a_state_in_tensors_is_resumed_exactly(name: str, train_options: dict, tmp_path: Path) -> None:
    options = train_options | {"balancer": "TorchJD", "balancer.name": name}
    options |= {"balancer.options": NEEDED[name]} if name in NEEDED else {}
    whole = train(**options)
    shutil.copytree(whole.folder, tmp_path / "stopped")
    stopped = Run(tmp_path / "stopped")
    stopped.checkpoints().file(30).unlink()
    train(resume=stopped.folder)
    one, other = whole.checkpoints().load()["agent"], stopped.checkpoints().load()["agent"]
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_state_that_cannot_be_restored_is_not_resumed_unless_forced(train_options: dict) -> None:
    options = {"balancer": "TorchJD", "balancer.name": "FAMO", "balancer.options": {"shape": 3}}
    run = train(**train_options | options)
    run.checkpoints().file(30).unlink()
    with pytest.raises(InputError, match=r"has a state that cannot be restored.*--balancer\.allow_inexact_resume true"):
        train(resume=run.folder)
    train(resume=run.folder, balancer__allow_inexact_resume=True)
    assert run.checkpoints().steps()[-1] == 30
