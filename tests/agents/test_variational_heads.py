"""Heads that are distributions: the laws of their priors, and what they are without noise."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mtorl.agents import BehaviorCloning
from mtorl.agents.heads import RegressionHead, VariationalHeads
from mtorl.agents.heads.variational import FLOOR, divergence, gumbel_like
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.entries import RelationsEntry
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.logs import Log
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.sharing import Shared
from mtorl.trainers.update import MultiTaskUpdate


def heads(tasks: int = 4, **options: object) -> VariationalHeads:
    torch.manual_seed(0)
    made = VariationalHeads(5, 2, tasks, **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        made.rho.add_(0.3 * torch.randn_like(made.rho))
        made.logits.copy_(torch.randn_like(made.logits))
    return made


def windows(tasks: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(tasks, 4, 6, 5, generator=draw, dtype=torch.float64)
    targets = 2 * torch.rand(tasks, 4, 6, 2, generator=draw, dtype=torch.float64) - 1
    return features, targets, torch.rand(tasks, 4, 6, generator=draw) < 0.6, torch.arange(tasks)


def test_divergences_of_normal_distributions() -> None:
    zero, one, four = (torch.tensor(value, dtype=torch.float64) for value in (0.0, 1.0, 4.0))
    assert float(divergence(one, four, one, four)) == 0
    assert float(divergence(zero, one, one, four)) == pytest.approx(0.4431, abs=1e-4)
    assert float(divergence(zero, one - FLOOR, zero, four - FLOOR)) == pytest.approx(0.5 * (math.log(4) - 0.75))


def test_of_two_tasks_each_is_the_others_prior() -> None:
    made = heads(2)
    for noise in (False, True):
        assert made.coefficients(torch.arange(2), noise).tolist() == [[0, 1], [1, 0]]
    means, variances = made.prior(torch.tensor([1, 0]))
    assert torch.equal(means, made.weight.detach())
    torch.testing.assert_close(variances, torch.nn.functional.softplus(made.rho.detach()).square())


def test_a_prior_is_that_of_the_weighted_sum() -> None:
    """Of independent heads: variances are weighted by squares; so many draws say, too."""
    made = heads(3).eval()
    shares, variances = made.coefficients(torch.arange(3)), torch.nn.functional.softplus(made.rho).square()
    assert torch.allclose(shares.sum(1), torch.ones(3, dtype=torch.float64)) and not shares.diagonal().any()
    means, spread = made.prior(torch.tensor([2]))
    draws = made.weight + variances.sqrt() * torch.randn(20_000, *made.weight.shape, dtype=torch.float64)
    mixed = torch.einsum("i,nifa->nfa", shares[2], draws)
    torch.testing.assert_close(mixed.mean(0), means[0], rtol=0, atol=0.002)
    torch.testing.assert_close(mixed.var(0), spread[0], rtol=0.06, atol=0)


def test_coefficients_are_drawn_and_become_sharp() -> None:
    made = heads(4, first_temperature=1.0, last_temperature=0.05)
    made.logits.data.zero_()
    temperatures = []
    for share in (0.0, 0.5, 1.0):
        made.progressed(share)
        temperatures.append(float(made.temperature))
    assert temperatures == pytest.approx([1.0, 0.05**0.5, 0.05])
    drawn = torch.stack([made.coefficients(torch.arange(4), noise=True) for _ in range(2000)])
    assert torch.allclose(drawn.sum(-1), torch.ones(2000, 4, dtype=torch.float64))
    assert not drawn.diagonal(dim1=1, dim2=2).any() and (drawn.amax(-1) > 0.95).double().mean() > 0.7
    others = ~torch.eye(4, dtype=torch.bool)
    assert (drawn.mean(0)[others] - 1 / 3).abs().max() < 0.05
    noise = gumbel_like(torch.zeros(100_000, dtype=torch.float64))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.02)


def test_heads_that_are_sure_are_deterministic_ones() -> None:
    """Without variance, and but for the divergence, over twice the variance of actions."""
    features, targets, valid, ids = windows()
    made = heads(deviation=1e-9)
    made.rho.data.fill_(math.log(math.expm1(1e-9)))
    plain = RegressionHead(5, 2, 4, "per_task").double()
    plain.load_state_dict({"weight": made.weight.detach(), "bias": made.bias.detach()})
    torch.testing.assert_close(made.predictions(features, ids), plain.predictions(features, ids), rtol=0, atol=1e-5)
    assert torch.equal(made.act(features[:, 0, 0], ids), plain.act(features[:, 0, 0], ids))
    made.expect(torch.full((4,), 1e15))
    found = made.losses(features, targets, valid, ids)
    torch.testing.assert_close(found, plain.losses(features, targets, valid, ids) / 0.2, rtol=1e-4, atol=1e-4)


def test_noise_is_that_of_drawn_weights() -> None:
    """Local reparameterisation: what outputs are like if weights are drawn."""
    features, _, _, ids = windows()
    made = heads()
    weights = made.weight + torch.nn.functional.softplus(made.rho) * torch.randn(20_000, 4, 5, 2, dtype=torch.float64)
    outputs = torch.einsum("tf,ntfa->nta", features[:, 1, 2], weights)
    torch.testing.assert_close(outputs.var(0), made._output_variances(features, ids)[:, 1, 2], rtol=0.06, atol=0)
    assert not torch.equal(made.predictions(features, ids), made.predictions(features, ids))
    assert torch.equal(made.eval().predictions(features, ids), made.means(features, ids))


def test_nobody_learns_through_the_priors_of_others_but_coefficients_do() -> None:
    features, targets, valid, ids = windows()
    made = heads()
    made.losses(features, targets, valid, ids)[0].backward()
    for row in (made.weight, made.rho, made.logits):
        assert row.grad is not None and row.grad[0].any() and not row.grad[1:].any()


def test_the_divergence_comes_to_count_and_is_shared_by_the_samples() -> None:
    _, targets, valid, ids = windows()
    features = torch.zeros(4, 4, 6, 5, dtype=torch.float64)
    made = heads(warmup=0.2).eval()
    made.expect(torch.tensor([10.0, 20.0, 40.0, 80.0]))
    made.temperatures = (1.0, 1.0)
    expected = made.divergences(ids) / made.samples / 2

    def counted(share: float) -> Tensor:
        made.progressed(share)
        apart = (torch.tanh(made.bias)[:, None, None] - targets).square().mean(-1)
        errors = (apart * valid).sum((1, 2)) / valid.sum((1, 2)) / (2 * made.log_variance.exp())
        return made.losses(features, targets, valid, ids) - errors

    for share, part in ((0.0, 0.005), (0.1, 0.505), (0.2, 1.0), (0.7, 1.0)):
        torch.testing.assert_close(counted(share), part * expected, rtol=1e-6, atol=1e-12)


def test_a_task_alone_has_the_standard_normal_prior() -> None:
    means, variances = heads(1).prior(torch.tensor([0]))
    assert not means.any() and (variances == 1).all()
    features, targets, valid, ids = windows(1)
    heads(1).losses(features, targets, valid, ids).sum().backward()


def test_a_learned_variance_is_that_of_the_errors() -> None:
    features, targets, valid, ids = windows()
    made = heads(likelihood="learned").eval()
    made.expect(torch.full((4,), 1e15))
    optimizer = torch.optim.Adam([made.log_variance], 0.05)
    for _ in range(400):
        optimizer.zero_grad()
        made.losses(features, targets, valid, ids).sum().backward()
        optimizer.step()
    errors = (made.means(features, ids) - targets).square().mean(-1)
    expected = (errors * valid).sum((1, 2)) / valid.sum((1, 2))
    torch.testing.assert_close(made.log_variance.exp(), expected, rtol=1e-3, atol=0)


def test_all_passes_of_an_update_share_their_noise(spec: DataSpec) -> None:
    agent = BehaviorCloning(spec, hidden=(8,), head=VariationalHeads).train()
    batch = TaskBatch(
        observations=torch.randn(3, 4, 1, 4),
        actions=torch.rand(3, 4, 1, 2),
        rewards=torch.zeros(3, 4, 1),
        returns_to_go=torch.zeros(3, 4, 1),
        timesteps=torch.zeros(3, 4, 1, dtype=torch.long),
        valid=torch.ones(3, 4, 1, dtype=torch.bool),
        task_ids=torch.arange(3),
    )
    optimizer = PhaseOptimizer(OptimizerSettings(), agent, [], agent.task_rows(), 10)

    def losses(step: int) -> Tensor:
        update = MultiTaskUpdate(PhaseFunctions(agent), optimizer, batch, Shared(), step, 10, seed=1)
        once = update.losses().values
        assert torch.equal(once, update.losses().values)
        return once

    assert torch.equal(losses(3), losses(3)) and not torch.equal(losses(3), losses(4))


@pytest.fixture
def run(train_options: dict) -> Run:
    return train(**train_options, **{"agent.head": "VariationalHeads", "schedule.monitor_every": 7})


def test_a_run_resumes_bit_for_bit_and_says_who_takes_from_whom(run: Run, tmp_path: Path) -> None:
    whole = run.checkpoints().load()["agent"]
    assert float(whole["head.progress"]) == pytest.approx(29 / 30)
    log = [row.plain() for row in Log(run.folder).of(RelationsEntry)]
    assert [row["step"] for row in log] == [0, 7, 14, 21, 28] and list(log[0]["deviation"]) == log[0]["tasks"]
    weights = torch.tensor(log[-1]["weights"])
    assert weights.shape == (3, 3) and not weights.diagonal().any()
    torch.testing.assert_close(weights.sum(1), torch.ones(3), rtol=0, atol=2e-4)
    run.checkpoints().file(30).unlink()
    train(resume=run.folder)
    again = run.checkpoints().load()["agent"]
    assert whole.keys() == again.keys() and all(torch.equal(value, again[name]) for name, value in whole.items())
    assert [row.plain() for row in Log(run.folder).of(RelationsEntry)] == log
