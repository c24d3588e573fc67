"""Worked examples of the methods that see the Gramian. Rows are gradients."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mtorl import InputError
from mtorl.trainers.balancers import (
    CDTT,
    IMTLG,
    MGDA,
    AlignedMTL,
    CAGrad,
    ConFIG,
    ConicGrad,
    DualProj,
    FairGrad,
    GradientAggregation,
    GradNorm,
    GradVac,
    NashMTL,
    PCGrad,
    UPGrad,
    WeightedPCGrad,
)
from mtorl.trainers.balancers.cdtt import central_direction, tensioned, without_conflict_in_turn

A = [[1, 0], [-1, 1]]
B = [[4, 0], [-1, 1]]
C = [[1, 0], [0, 2]]
D = [[-4, 1, 1], [6, 1, 1]]
E = [[1, 0, 0], [-1, 1, 0], [0, -1, 1]]
F = [[1, 0], [-2, 0]]  # Pareto-stationary
R = 2**0.5


def direction(balancer: GradientAggregation, rows: list) -> Tensor:
    matrix = torch.tensor(rows, dtype=torch.float64)
    return balancer.weights(matrix @ matrix.T) @ matrix


@pytest.mark.parametrize(
    ("balancer", "rows", "expected"),
    [
        (PCGrad(), A, [0.5, 1.5]),
        (PCGrad(), B, [2, 3]),
        (PCGrad(), C, [1, 2]),
        (PCGrad(), D, [0.584795, 3.80117, 3.80117]),
        (MGDA(), A, [0.2, 0.4]),
        (MGDA(), B, [2 / 13, 10 / 13]),
        (MGDA(), C, [0.8, 0.4]),
        (MGDA(), D, [0, 1, 1]),
        (MGDA(), E, [1 / 14, 2 / 14, 3 / 14]),
        (MGDA(), F, [0, 0]),
        (CAGrad(), A, [0.25, 0.5]),
        (CAGrad(), B, [0.940983, 1.059017]),
        (CAGrad(), C, [1.059017, 1]),
        (CAGrad(0.4), A, [0.2, 0.5]),
        (CAGrad(0.4), B, [1.052786, 0.947214]),
        (CAGrad(0), B, [1.5, 0.5]),
        (CAGrad(1), F, [0, 0]),
        (IMTLG(), A, [3 - 2 * R, R - 1]),
        (IMTLG(), C, [2 / 3, 2 / 3]),
        (IMTLG(), E, [0.057758, 0.139439, 0.221121]),
        (IMTLG(), F, [0, 0]),
        (NashMTL(0), A, [0.541196, 1.306563]),
        (NashMTL(0), B, [0.541196, 1.306563]),
        (NashMTL(0), C, [1, 1]),
        (NashMTL(0), D, [0.076584, 0.998533, 0.998533]),
        (NashMTL(0), E, [0.374635, 0.810434, 1.484199]),
        (NashMTL(), B, [0.382683, 0.923880]),
        (FairGrad(), E, [0.374635, 0.810434, 1.484199]),
        (FairGrad(2.0), A, [0.678211, 1.495842]),
        (FairGrad(2.0), B, [0.387871, 1.273876]),
        (FairGrad(2.0), C, [1, 0.793701]),
        (FairGrad(2.0), D, [0.031274, 0.790817, 0.790817]),
        (AlignedMTL(), A, [0.138197, 0.414590]),
        (AlignedMTL(), B, [0.379826, 0.569739]),
        (AlignedMTL(), C, [0.5, 0.5]),
        (UPGrad(), A, [0.25, 0.75]),
        (UPGrad(), B, [1, 1.5]),
        (UPGrad(), C, [0.5, 1]),
        (UPGrad(), D, [0.292398, 1.900585, 1.900585]),
        (UPGrad(), E, [1 / 9, 5 / 18, 11 / 18]),
        (DualProj(), A, [0, 0.5]),
        (DualProj(), B, [1, 1]),
        (DualProj(), C, [0.5, 1]),
        (DualProj(), D, [5 / 9, 10 / 9, 10 / 9]),
        (DualProj(), E, [0, 0, 1 / 3]),
        (ConFIG(), A, [R / 4, 0.853553]),
        (ConFIG(), B, [0.792893, 1.914214]),
        (ConFIG(), C, [1.5, 1.5]),
        (ConFIG(), E, [0.178188, 0.430185, 0.682181]),
        (ConFIG(), F, [0, 0]),
        (CDTT(), A, [0.171573, 0.414214]),
        (CDTT(), B, [0.306019, 0.738796]),
        (CDTT(), C, [2 / 3, 2 / 3]),
        (CDTT(), E, [0.057758, 0.139439, 0.221121]),
        (GradVac(), A, [0.5, 1.5]),
        (GradVac(), B, [2, 3]),
        (GradNorm(), B, [3, 1]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, GradientAggregation) else "",
)
def test_worked_examples(balancer: GradientAggregation, rows: list, expected: list[float]) -> None:
    np.testing.assert_allclose(direction(balancer, rows), expected, atol=1e-6)


def test_weights_of_examples() -> None:
    matrix = torch.tensor(A, dtype=torch.float64)
    weights = NashMTL(0).weights(matrix @ matrix.T)
    np.testing.assert_allclose(weights, [(2 + R) ** 0.5, ((2 + R) / 2) ** 0.5], rtol=1e-9)
    aligned = AlignedMTL()
    rows = torch.tensor(A, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(rows @ rows.T)
    balance = values.min().sqrt() * vectors @ torch.diag(values**-0.5) @ vectors.T
    np.testing.assert_allclose((balance @ rows) @ (balance @ rows).T, 0.381966 * np.eye(2), atol=1e-6)
    np.testing.assert_allclose(direction(aligned, A), balance.sum(0) @ rows / 2, atol=1e-9)


def test_fairgrad_with_a_large_alpha_equalises_the_gains() -> None:
    gains = torch.tensor(B, dtype=torch.float64) @ direction(FairGrad(100.0), B)
    np.testing.assert_allclose(gains, [1.0098, 0.9978], atol=1e-4)


def test_pcgrad_on_a_chain_has_four_outcomes() -> None:
    balancer = PCGrad()
    outcomes = {tuple(direction(balancer, E).numpy().round(6)) for _ in range(200)}
    assert outcomes == {(0, 0.25, 1.75), (0.5, 0.25, 1.75), (0, 0.5, 1.5), (0.5, 0.5, 1.5)}
    mean = np.mean([direction(balancer, E).numpy() for _ in range(2000)], axis=0)
    np.testing.assert_allclose(mean, [0.25, 0.375, 1.625], atol=0.03)


@pytest.mark.parametrize("mode", ["order", "pairwise", "single"])
def test_weighted_pcgrad_keeps_the_task_that_was_drawn(mode: str) -> None:
    for rows, first, second in ((A, (1, 1), (-0.5, 1.5)), (B, (4, 1), (1, 3))):
        balancer = WeightedPCGrad(mode, gamma=2.0, period=1)  # type: ignore[arg-type]
        matrix = torch.tensor(rows, dtype=torch.float64)
        losses = torch.tensor([2.0, 1.0], dtype=torch.float64)
        balancer.weights(matrix @ matrix.T, losses)  # the first period
        np.testing.assert_allclose(balancer.probabilities(np.arange(2)), [0.8, 0.2])
        outcomes = [tuple((balancer.weights(matrix @ matrix.T, losses) @ matrix).numpy().round(6)) for _ in range(1000)]
        assert set(outcomes) == {first, second}
        assert outcomes.count(first) / 1000 == pytest.approx(0.8, abs=0.05)


def test_weighted_pcgrad_without_conflict_is_the_sum() -> None:
    for mode in ("order", "pairwise", "single"):
        np.testing.assert_allclose(direction(WeightedPCGrad(mode), C), [1, 2])  # type: ignore[arg-type]


def test_gradvac_turns_to_its_target() -> None:
    balancer = GradVac(beta=0.0)
    balancer.init(2, None, torch.Generator().manual_seed(0))
    balancer.targets[0, 1] = 0.5
    matrix = torch.tensor(A, dtype=torch.float64)
    weights = balancer.weights(matrix @ matrix.T)
    first = matrix[0] + (weights[1] - 1) * matrix[1]  # what the second task's own surgery adds is along the first
    assert first @ matrix[1] / first.norm() / matrix[1].norm() == pytest.approx(0.5, abs=1e-9)
    assert weights[1] == pytest.approx(1.788675, abs=1e-6)


def test_gradvac_remembers_cosines() -> None:
    balancer = GradVac(beta=0.5)
    matrix = torch.tensor(A, dtype=torch.float64)
    balancer.weights(matrix @ matrix.T)
    np.testing.assert_allclose(balancer.targets, [[0, -R / 4], [-R / 4, 0]], atol=1e-9)
    for _ in range(50):
        balancer.weights(matrix @ matrix.T)
        assert balancer.targets.abs().max() <= 1


def test_gradnorm_moves_its_weights() -> None:
    balancer = GradNorm(lr=1e-3)
    rows = torch.tensor(B, dtype=torch.float64)
    balancer.weights(rows @ rows.T, torch.tensor([4.0, 1.0]))
    np.testing.assert_allclose(
        balancer.slope(np.ones(2), np.array([4, R]), np.array([0.5, 1.0])), [4, -1.414214], atol=1e-6
    )
    balancer.weights(rows @ rows.T, torch.tensor([2.0, 1.0]))
    assert balancer.task_weights[0] < 1 < balancer.task_weights[1]
    assert balancer.task_weights.sum() == pytest.approx(2)


def test_cdtt_by_its_parts() -> None:
    for alpha, signals, expected in (
        (0.3, [0.0, 1.0, 1.5], [0.718571, 0.85, 0.938686]),
        (1.0, [0.0, 1.0], [0.061903, 0.5]),
        (0.0, [-3.0, 9.0], [1.0, 1.0]),
    ):
        np.testing.assert_allclose(CDTT(alpha).tension(np.array(signals)), expected, atol=1e-6)
    tension = CDTT(0.3).tension(np.array([1.5, 0.0]))
    for rows, before, after in (
        (A, (0.368450, 0.315775), (1 / 3, 1 / 3)),
        (B, None, (0.521860, 0.695628)),
        (C, None, (0.765105, 0.469790)),
    ):
        matrix = np.array(rows, dtype=float)
        gramian = matrix @ matrix.T
        pulled = tensioned(gramian, central_direction(gramian), tension)
        if before:
            np.testing.assert_allclose(pulled @ matrix, before, atol=1e-6)
        np.testing.assert_allclose(without_conflict_in_turn(gramian, pulled) @ matrix, after, atol=1e-6)
    equal = tensioned(gramian, central_direction(gramian), np.ones(2))
    np.testing.assert_allclose(equal, central_direction(gramian), atol=1e-9)


def test_cdtt_pulls_from_the_eleventh_step_on() -> None:
    balancer = CDTT()
    matrix = torch.tensor(A, dtype=torch.float64)
    losses = torch.tensor([1.0, 0.1])
    directions = [balancer.weights(matrix @ matrix.T, losses) @ matrix for _ in range(11)]
    np.testing.assert_allclose(directions[9], [0.171573, 0.414214], atol=1e-6)
    assert not np.allclose(directions[10], directions[9])
    matrix[0] *= 1.5  # this task's norm has grown over the window
    assert not np.allclose(balancer.weights(matrix @ matrix.T, losses) @ matrix, directions[10])


def test_mgda_normalisations() -> None:
    rows = torch.tensor(B, dtype=torch.float64)
    losses = torch.tensor([2.0, 0.5], dtype=torch.float64)
    for normalise, units in (("l2", [0.25, 1 / R]), ("loss", [0.5, 2.0]), ("loss+", [0.125, 2 / R])):
        scaled = torch.tensor(units, dtype=torch.float64)[:, None] * rows
        expected = MGDA().weights(scaled @ scaled.T) @ scaled
        normalised = MGDA(normalise).weights(rows @ rows.T, losses) @ rows  # type: ignore[arg-type]
        np.testing.assert_allclose(normalised, expected, atol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CAGrad(-1),
        lambda: CDTT(alpha=2),
        lambda: FairGrad(0),
        lambda: GradNorm(lr=0),
        lambda: GradVac(beta=2),
        lambda: NashMTL(-1),
        lambda: WeightedPCGrad(period=0),
        lambda: MGDA("l3"),  # type: ignore[arg-type]
        lambda: AlignedMTL("max"),  # type: ignore[arg-type]
        lambda: WeightedPCGrad("both"),  # type: ignore[arg-type]
    ],
)
def test_impossible_settings_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="expected"):
        make()


def test_conic_gradients() -> None:
    """The mean gradient of A is (0, 0.5) and the shortest combination (0.2, 0.4): at a cosine of 0.894 to it."""
    np.testing.assert_allclose(direction(ConicGrad(0.5), A), [0.5 / 5**0.5, 1 / 5**0.5], atol=1e-6)
    np.testing.assert_allclose(direction(ConicGrad(0.8), A), [0.5 / 5**0.5, 1 / 5**0.5], atol=1e-6)
    surface = [0.5 * (1 - 0.95**2) ** 0.5, 0.5 * 0.95]
    np.testing.assert_allclose(direction(ConicGrad(0.95), A), surface, atol=1e-6)
    np.testing.assert_allclose(direction(ConicGrad(1.0), A), [0, 0.5], atol=1e-12)
    np.testing.assert_allclose(direction(ConicGrad(0.5), [[1, 0], [-1, 0]]), [0, 0], atol=1e-12)
    draw = torch.Generator().manual_seed(0)
    for tasks, size in ((3, 5), (6, 4), (12, 8)):
        for c in (0.5, 0.8, 0.95):
            rows = torch.randn(tasks, size, dtype=torch.float64, generator=draw)
            mean, found = rows.mean(0), ConicGrad(c).weights(rows @ rows.T) @ rows
            assert found.norm().item() == pytest.approx(mean.norm().item())
            assert torch.cosine_similarity(found, mean, 0) >= c - 1e-6
            gain = (rows @ found).min()
            for _ in range(200):  # no other direction in the cone helps the worst-off task more
                other = found + 0.3 * mean.norm() * torch.randn(size, dtype=torch.float64, generator=draw)
                other *= mean.norm() / other.norm()
                if torch.cosine_similarity(other, mean, 0) >= c:
                    assert (rows @ other).min() <= gain + 1e-5 * mean.norm()
