"""Moments, posteriors and aggregation of BayesAgg, and what it asks of the agent."""

import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.runs.training import train
from mtorl.trainers.balancers import BayesAgg
from mtorl.trainers.balancers.bayesagg import condition, gradient_moments


def tensor(values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_moments_by_hand() -> None:
    mean, variance = gradient_moments(tensor([[1.0]]), tensor([[2.0]]), tensor([[1.0]]), tensor([[0.5]]))
    assert (mean.item(), variance.item()) == pytest.approx((-1, 2))
    mean, variance = gradient_moments(
        tensor([[0.7, -1.2]]), tensor([[0.4]]), tensor([[1.0], [-0.5]]), tensor([[0.5, 0.1], [0.1, 0.3]])
    )
    np.testing.assert_allclose(mean[0, 0], [2.26, -1.48])
    np.testing.assert_allclose(variance[0, 0], [6.5416, 3.4722])


def test_moments_against_samples() -> None:
    draw = torch.Generator().manual_seed(0)
    factor = torch.randn(3, 3, dtype=torch.float64, generator=draw)
    covariance, mean = factor @ factor.T, torch.randn(3, 2, dtype=torch.float64, generator=draw)
    features, targets = torch.randn(1, 3, dtype=torch.float64, generator=draw), tensor([[0.3, -1.0]])
    moments = gradient_moments(features, targets, mean, covariance)
    noise = torch.randn(400_000, 3, dtype=torch.float64, generator=draw) @ factor.T
    for output in range(2):
        weights = mean[:, output] + noise
        samples = 2 * weights * (weights @ features[0] - targets[0, output])[:, None]
        np.testing.assert_allclose(moments[0][0, output], samples.mean(0), atol=0.15)
        np.testing.assert_allclose(moments[1][0, output], samples.var(0), rtol=0.03)


def test_posterior_and_conditioning_again() -> None:
    features, targets = tensor([[1.0], [2.0]]), tensor([[1.0], [2.0]])
    once = condition(tensor([[0.0]]), tensor([[1.0]]), features, targets)
    assert (once[0].item(), once[1].item()) == pytest.approx((5 / 6, 1 / 6))
    twice = condition(*once, features, targets)
    assert (twice[0].item(), twice[1].item()) == pytest.approx((10 / 11, 1 / 11))


def test_aggregation_over_outputs() -> None:
    gradient, variance = tensor([[[[-1.0], [3.0]]]]), tensor([[[[2.0], [1.0]]]])
    for power, expected in ((1.0, 5 / 3), (0.5, 1.343146), (0.0, 1.0)):
        cotangent = BayesAgg(power=power).aggregate(gradient, variance, torch.ones(1, 1))
        assert cotangent.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("mode", ["outputs", "batch"])
def test_without_trust_it_is_the_gradient_of_the_mean_loss(mode: str) -> None:
    draw = torch.Generator().manual_seed(0)
    gradient = torch.randn(3, 7, 2, 4, dtype=torch.float64, generator=draw)
    valid = torch.rand(3, 7, generator=draw) > 0.3
    for power, variance in ((0.0, torch.rand_like(gradient)), (0.7, torch.zeros_like(gradient))):
        cotangent = BayesAgg(mode, power=power).aggregate(gradient, variance, valid)  # type: ignore[arg-type]
        expected = gradient.mean(2) * (valid / valid.sum(1, keepdim=True))[..., None]
        torch.testing.assert_close(cotangent, expected)
    trusted = BayesAgg("outputs", power=1.0).aggregate(gradient, torch.rand_like(gradient), torch.ones(3, 7))
    assert (7 * trusted <= gradient.max(2).values + 1e-9).all() and (7 * trusted >= gradient.min(2).values - 1e-9).all()


@pytest.mark.parametrize("mode", ["outputs", "batch"])
def test_padded_outputs_do_not_count(mode: str) -> None:
    draw = torch.Generator().manual_seed(0)
    gradient, variance = (torch.rand(2, 7, 5, 4, dtype=torch.float64, generator=draw) for _ in range(2))
    owned = tensor([[1.0, 1, 1, 0, 0]] * 2)
    valid = torch.rand(2, 7, generator=draw) > 0.3
    balancer = BayesAgg(mode, power=0.6)  # type: ignore[arg-type]
    expected = balancer.aggregate(gradient[:, :, :3], variance[:, :, :3], valid)
    torch.testing.assert_close(balancer.aggregate(gradient, variance, valid, owned), expected)


def test_batch_mode_keeps_the_total_weight() -> None:
    gradient, variance = torch.ones(2, 5, 3, 4).double(), torch.rand(2, 5, 3, 4).double()
    cotangent = BayesAgg("batch", power=0.5).aggregate(gradient, variance, torch.ones(2, 5))
    torch.testing.assert_close(cotangent.sum((0, 1)), torch.full((4,), 2.0).double())


def test_an_agent_without_linear_heads_is_refused(train_options: dict) -> None:
    with pytest.raises(InputError, match=r"--agent\.output_heads linear"):
        train(**{**train_options, "balancer": "BayesAgg"})


def test_impossible_settings_are_refused() -> None:
    for options in ({"mode": "tasks"}, {"power": -1.0}, {"memory": 1.0}, {"prior": 0.0}):
        with pytest.raises(InputError, match="expected"):
            BayesAgg(**options)
