"""Methods that look at two halves of a batch."""

import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.agents import BehaviorCloning
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.balancers import Averaged, GradientAggregation, Layerwise, MoDo, SDMGrad
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import gramian, products
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.sharing import Shared
from mtorl.trainers.update import MultiTaskUpdate

UNLIKE = torch.tensor([[4.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
"""Products of gradients on different windows; magnitudes in a row sum to 5 and 2."""


def test_modo() -> None:
    """With equal weights the products are (1.5, 1) / 5: around their mean, 0.05 more for the first task."""
    balancer = MoDo(gamma=0.1, rho=0.0)
    np.testing.assert_allclose(balancer.weights(UNLIKE), [0.495, 0.505])
    np.testing.assert_allclose(balancer.simplex, [0.495, 0.505])
    np.testing.assert_allclose(MoDo(gamma=100.0).weights(UNLIKE), [0, 1])
    drawn = MoDo(gamma=0.1, rho=2.0)
    np.testing.assert_allclose(drawn.weights(UNLIKE), [0.495, 0.505])  # equal weights are where rho draws
    first = 0.8 * 0.495 + 0.1 - 0.1 * (1.475 - 1.2375) / 5  # the products are now (1.475, 1), with a mean of 1.2375
    np.testing.assert_allclose(drawn.weights(UNLIKE), [first, 1 - first])


def test_sdmgrad() -> None:
    """One step from equal weights, pulled by the mean: 1.3 times MoDo's, then 0.3 / 2 to each of 1.3."""
    balancer = SDMGrad(pull=0.3, lr=0.1, momentum=0.0, iterations=1)
    first = 0.5 - 1.3 * 0.005
    np.testing.assert_allclose(balancer.weights(UNLIKE), [(first + 0.15) / 1.3, (1.15 - first) / 1.3])
    even = SDMGrad().weights(torch.eye(3, dtype=torch.float64))
    np.testing.assert_allclose(even, 1 / 3)
    pulled = SDMGrad(pull=1e6).weights(UNLIKE)
    np.testing.assert_allclose(pulled, 0.5, atol=1e-5)


def test_noise_does_not_draw_the_weights() -> None:
    """Two tasks with the same expected gradient, one with noise: products on one draw call it long, on two do not."""
    draw = torch.Generator().manual_seed(0)
    mean, noise = torch.ones(50, dtype=torch.float64), torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    once, twice = MoDo(gamma=0.02, rho=0.0), MoDo(gamma=0.02, rho=0.0)
    for _ in range(500):
        one, other = (mean + noise * torch.randn(2, 50, dtype=torch.float64, generator=draw) for _ in range(2))
        once.weights(one @ one.T)
        twice.weights(one @ other.T)
    assert once.simplex[0] > 0.95 and twice.simplex[0] < 0.8


def test_products_of_long_rows() -> None:
    draw = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 3, 100_001, generator=draw)
    expected = one.double() @ other.double().T
    torch.testing.assert_close(products(one, other), expected, rtol=0, atol=1e-6 * float(one.norm() * other.norm()))
    torch.testing.assert_close(gramian(one), products(one, one))


def updates(spec: DataSpec, store: EpisodeStore, windows: int = 6) -> MultiTaskUpdate:
    torch.manual_seed(0)
    agent = BehaviorCloning(spec, hidden=(16,), output_heads="per_task").double()
    functions = PhaseFunctions(agent)
    optimizer = PhaseOptimizer(OptimizerSettings(warmup=0), agent, [], agent.task_rows(), 100)
    sampler = TaskSampler([store], spec.task_names, windows, 1, np.random.default_rng(0))
    batch = sampler.draw().to("cpu", torch.float64)
    return MultiTaskUpdate(functions, optimizer, batch, Shared(), 0, 100, seed=0)


def test_draws_are_of_different_windows_and_have_the_batch_as_their_mean(spec: DataSpec, store: EpisodeStore) -> None:
    update = updates(spec, store)
    private = dict(update._functions.private)
    whole = update.gradients()
    expected, losses = whole.pulled_back.clone(), whole.losses.clone()
    of_heads = {name: value.grad.clone() for name, value in private.items() if value.grad is not None}
    parts = update.draws(3)
    assert of_heads and not torch.allclose(parts[0].pulled_back, parts[1].pulled_back)
    torch.testing.assert_close(sum(it.pulled_back for it in parts) / 3, expected)
    torch.testing.assert_close(sum(it.losses for it in parts) / 3, losses)
    for name, gradient in of_heads.items():
        torch.testing.assert_close(private[name].grad, gradient)
    with pytest.raises(InputError, match=r"a batch has 2 windows of each task; expected at least 3.*--windows"):
        updates(spec, store, 2).draws(3)


def test_a_batch_moves_with_the_weights_from_before_it(spec: DataSpec, store: EpisodeStore) -> None:
    balancer = MoDo(gamma=0.5)
    balancer.init(3, None, torch.Generator().manual_seed(0))
    update = updates(spec, store)
    balancer.step(update)
    assert update.weights is not None
    torch.testing.assert_close(update.weights, torch.full((3,), 1 / 3, dtype=torch.float64))
    assert not torch.allclose(balancer.simplex, update.weights)


@pytest.mark.parametrize("wrapper", [Averaged, Layerwise])
def test_stages_do_not_take_what_looks_at_two_halves(wrapper: type[GradientAggregation]) -> None:
    with pytest.raises(InputError, match=r"holds MoDo, which works on whole steps.*Use MoDo alone"):
        wrapper(MoDo())  # type: ignore[call-arg]


@pytest.mark.parametrize("make", [lambda: MoDo(gamma=0), lambda: SDMGrad(momentum=1), lambda: SDMGrad(iterations=0)])
def test_impossible_settings_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="expected"):
        make()
