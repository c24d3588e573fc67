"""Worked examples of the methods that see the losses alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mtorl import InputError
from mtorl.trainers.balancers import (
    COSMOS,
    DWA,
    FAMO,
    IMTLL,
    PBI,
    STCH,
    Balancer,
    Equal,
    FixedWeights,
    GeometricMean,
    RandomWeighting,
    Uncertainty,
)

IDS = torch.arange(2)


def losses(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ready(balancer: Balancer, tasks: int = 2) -> Balancer:
    balancer.init(tasks, None, torch.Generator().manual_seed(0))
    return balancer


def test_equal_and_fixed_weights() -> None:
    assert Equal().weights(losses(1, 5), IDS).tolist() == [0.5, 0.5]
    fixed = ready(FixedWeights([1, 3, 0]), 3)
    assert fixed.weights(losses(1, 1), torch.tensor([2, 1])).tolist() == [0, 3]  # type: ignore[operator]
    with pytest.raises(InputError, match="has 3 values; expected one for each of the 2 tasks"):
        ready(FixedWeights([1, 3, 0]))
    for values in ([], [0, 0], [-1, 2]):
        with pytest.raises(InputError, match="expected a weight per task"):
            FixedWeights(values)


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_random_weights_lie_on_the_simplex(distribution: str) -> None:
    balancer = ready(RandomWeighting(distribution), 4)  # type: ignore[arg-type]
    draws = torch.stack([balancer.weights(losses(1, 2, 3, 4), torch.arange(4)) for _ in range(2000)])  # type: ignore
    torch.testing.assert_close(draws.sum(1), torch.ones(2000).double())
    assert (draws > 0).all() and draws.std(0).min() > 0.1
    np.testing.assert_allclose(draws.mean(0), 0.25, atol=0.02)


def test_uncertainty() -> None:
    balancer = ready(Uncertainty(-0.5))
    assert balancer.weights(losses(1, 1), IDS).tolist() == pytest.approx([0.824361] * 2, abs=1e-6)  # type: ignore
    balancer = ready(Uncertainty())
    values = losses(0.1, 3.0)
    optimizer = torch.optim.LBFGS(balancer.parameters(), line_search_fn="strong_wolfe", max_iter=100)

    def objective() -> Tensor:
        optimizer.zero_grad()
        total = balancer.objective(values, balancer.weights(values, IDS), IDS)  # type: ignore[operator]
        total.backward()
        return total

    objective()
    np.testing.assert_allclose(balancer.log_variances.grad, [0.5 * (1 - 0.1), 0.5 * (1 - 3.0)])  # type: ignore
    optimizer.step(objective)
    np.testing.assert_allclose(balancer.weights(values, IDS).detach() * values, [0.5, 0.5], atol=1e-5)  # type: ignore


def test_imtl_l_is_stationary_where_the_weighted_losses_are_one() -> None:
    balancer = ready(IMTLL())
    balancer.scales.data[:] = torch.tensor([-0.693147, 0.0])
    values = losses(2, 1)
    weights = balancer.weights(values, IDS)
    total = balancer.objective(values, weights, IDS)
    total.backward()
    assert weights[0].item() == pytest.approx(0.5, abs=1e-6)
    assert total.item() == pytest.approx(1 + np.log(2) + 1, abs=1e-6)
    np.testing.assert_allclose(balancer.scales.grad, [0, 0], atol=1e-6)


def test_dynamic_weight_average() -> None:
    balancer = ready(DWA(period=2))
    for values in ((1, 1), (1, 1), (0.5, 0.9), (0.5, 0.9)):
        assert balancer.weights(losses(*values), IDS).tolist() == [1, 1]
    np.testing.assert_allclose(balancer.weights(losses(9, 9), IDS), [0.900332, 1.099668], atol=1e-6)
    balancer = ready(DWA(temperature=1e9, period=1))
    for _ in range(3):
        np.testing.assert_allclose(balancer.weights(losses(*torch.rand(2).tolist()), IDS), [1, 1], atol=1e-6)


def test_geometric_mean() -> None:
    np.testing.assert_allclose(GeometricMean().weights(losses(1, 4), IDS), [1, 0.25])
    values = losses(0.3, 2.0).requires_grad_()
    (slope,) = torch.autograd.grad(values.prod().sqrt(), [values])
    torch.testing.assert_close(GeometricMean().weights(values, IDS), slope)


def test_famo() -> None:
    balancer = ready(FAMO(weight_decay=0.0))
    np.testing.assert_allclose(balancer.weights(losses(2, 1), IDS), [1 / 3, 2 / 3], atol=1e-6)
    balancer.learn(losses(2, 1), losses(1.8, 1), IDS)
    np.testing.assert_allclose(balancer.logits, [-0.025, 0.025], atol=1e-6)
    np.testing.assert_allclose(balancer.logits.softmax(0), [0.487503, 0.512497], atol=1e-6)
    even = ready(FAMO())
    for _ in range(20):
        even.learn(losses(1, 1), losses(0.9, 0.9), IDS)
    assert even.logits.softmax(0).tolist() == pytest.approx([0.5, 0.5])
    assert even.weights(losses(3, 1), IDS).sum().item() == pytest.approx(1)


def test_smooth_tchebycheff() -> None:
    values = losses(1, 2).requires_grad_()
    np.testing.assert_allclose(ready(STCH(0.5, warmup=0)).weights(values, IDS), [0.134471, 0.365529], atol=1e-6)
    total = 0.5 * (values / 2 / 0.5).logsumexp(0)
    assert total.item() == pytest.approx(1.156631, abs=1e-6)
    (slope,) = torch.autograd.grad(total, [values])
    torch.testing.assert_close(ready(STCH(0.5, warmup=0)).weights(values, IDS), slope)
    np.testing.assert_allclose(ready(STCH(1e-3, warmup=0)).weights(values, IDS), [0, 0.5], atol=1e-6)
    balancer = ready(STCH(0.5, warmup=1))
    np.testing.assert_allclose(balancer.weights(losses(1, 1), IDS), [0.5, 0.5])  # 1 / (T loss)
    np.testing.assert_allclose(2 * balancer.weights(losses(1, 2), IDS), [0.4, 0.8], atol=1e-6)


def test_boundary_intersection() -> None:
    """Losses (3, 4) lie 7 / sqrt 2 along the diagonal and 1 / sqrt 2 aside of it."""
    values = losses(3, 4).requires_grad_()
    along = (3 + 4) / 2**0.5
    assert along**2 + 0.5 == pytest.approx(25)
    np.testing.assert_allclose(PBI(theta=0.5).weights(values, IDS), [0.353553, 1.060660], atol=1e-6)
    unit = torch.tensor([1.0, 2.0], dtype=torch.float64) / 5**0.5
    total = values @ unit + 0.3 * (values - (values @ unit) * unit).norm()
    (slope,) = torch.autograd.grad(total, [values])
    torch.testing.assert_close(PBI([2, 4], theta=0.3).weights(values, IDS), slope)
    np.testing.assert_allclose(
        PBI(theta=5.0).weights(values, IDS), [0, 3 * 2**0.5], atol=1e-6
    )  # the first would be negative
    np.testing.assert_allclose(PBI([3, 4]).weights(values, IDS), [0.6, 0.8])
    three = ready(PBI([1, 5, 2]), 3)
    torch.testing.assert_close(
        three.weights(losses(4, 1), torch.tensor([2, 0])), PBI([2, 1]).weights(losses(4, 1), IDS)
    )  # type: ignore[operator]


def test_cosmos() -> None:
    values = losses(3, 4).requires_grad_()
    np.testing.assert_allclose(COSMOS(penalty=1.0).weights(values, IDS), [0.477373, 0.516971], atol=1e-6)
    preference = torch.tensor([0.25, 0.75], dtype=torch.float64)
    total = preference @ values - 0.7 * torch.cosine_similarity(preference, values, 0)
    (slope,) = torch.autograd.grad(total, [values])
    torch.testing.assert_close(COSMOS([1, 3], penalty=0.7).weights(values, IDS), slope)
    assert COSMOS(penalty=0.0).weights(values, IDS).tolist() == [0.5, 0.5]
    assert (COSMOS(penalty=100.0).weights(losses(0.1, 4), IDS) >= 0).all()


@pytest.mark.parametrize("kind", [PBI, COSMOS])
def test_preferences_are_one_positive_number_per_task(kind: type) -> None:
    for values in ([], [1, 0], [-1, 2]):
        with pytest.raises(InputError, match="expected a positive number per task"):
            kind(values)
    with pytest.raises(InputError, match="has 3 preferences; expected one for each of the 2 tasks"):
        ready(kind([1, 2, 3]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DWA(temperature=0),
        lambda: FAMO(lr=0),
        lambda: RandomWeighting("beta"),  # type: ignore[arg-type]
        lambda: STCH(mu=0),
        lambda: PBI(theta=-1),
        lambda: COSMOS(penalty=-1),
    ],
)
def test_impossible_settings_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="expected"):
        make()
