"""Stages around methods, alone and composed."""

import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.agents import BehaviorCloning
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.runs.training import train
from mtorl.trainers.balancers import (
    MGDA,
    Averaged,
    Balancer,
    Equal,
    GradVac,
    Layerwise,
    PCGrad,
    Prescaled,
    Rescaled,
    Reused,
    Subsampled,
    UPGrad,
)
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.sharing import Shared
from mtorl.trainers.update import MultiTaskUpdate

B = torch.tensor([[4.0, 0], [-1, 1]], dtype=torch.float64)
GRAMIAN = B @ B.T


def test_prescaled_by_the_loss_descends_logarithms() -> None:
    losses = torch.tensor([2.0, 0.5], dtype=torch.float64)
    scaled = B / losses[:, None]
    expected = MGDA().weights(scaled @ scaled.T) @ scaled
    torch.testing.assert_close(Prescaled(MGDA()).weights(GRAMIAN, losses) @ B, expected)
    first = Prescaled(MGDA(), "first")
    torch.testing.assert_close(first.weights(GRAMIAN, losses) @ B, expected)
    torch.testing.assert_close(first.weights(GRAMIAN, 0.1 * losses) @ B, expected), "the first losses stay"


def test_averaged() -> None:
    balancer = Averaged(MGDA(), decay=0.75)
    first, other = MGDA().weights(GRAMIAN), MGDA().weights(torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(balancer.weights(GRAMIAN), first)
    torch.testing.assert_close(balancer.weights(torch.eye(2).double()), 0.75 * first + 0.25 * other)


def test_rescaled() -> None:
    weights = Rescaled(MGDA(), "sum_to_T").weights(GRAMIAN)
    assert weights.sum().item() == pytest.approx(2)
    direction = Rescaled(PCGrad(), "match_mean_norm").weights(GRAMIAN) @ B
    assert direction.norm().item() == pytest.approx(B.norm(dim=1).mean().item())
    torch.testing.assert_close(Rescaled(MGDA(), "none").weights(GRAMIAN), MGDA().weights(GRAMIAN))
    opposed = torch.tensor([[1.0, -2.0], [-2.0, 4.0]], dtype=torch.float64)
    assert Rescaled(MGDA()).weights(opposed).isfinite().all()


def build(
    spec: DataSpec, store: EpisodeStore, balancer: Balancer, seed: int = 0
) -> tuple[BehaviorCloning, list[MultiTaskUpdate]]:
    torch.manual_seed(0)
    agent = BehaviorCloning(spec, hidden=(16,), output_heads="per_task")
    functions = PhaseFunctions(agent)
    optimizer = PhaseOptimizer(OptimizerSettings(warmup=0), agent, [], agent.task_rows(), 100)
    sampler = TaskSampler([store], spec.task_names, 5, 1, np.random.default_rng(0))
    balancer.init(3, functions.space, torch.Generator().manual_seed(seed))
    return agent, [MultiTaskUpdate(functions, optimizer, sampler.draw(), Shared(), i, 100, seed=0) for i in range(8)]


def test_reused_asks_the_method_now_and_then(
    spec: DataSpec, store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    balancer = Reused(UPGrad(), every=3)
    _, updates = build(spec, store, balancer)
    steps = []
    real = MultiTaskUpdate.gradients
    monkeypatch.setattr(MultiTaskUpdate, "gradients", lambda self: steps.append(self._index) or real(self))
    for update in updates:
        balancer.step(update)
        assert update.weights is not None and not update.first_losses.isnan().any()
    assert steps == [0, 3, 6]
    assert torch.equal(updates[4].weights, updates[3].weights)


def test_layerwise_weighs_every_tensor_by_itself(spec: DataSpec, store: EpisodeStore) -> None:
    balancer = Layerwise(GradVac())
    agent, updates = build(spec, store, balancer)
    names = updates[0].phase.space.names
    assert len(balancer.copies) == len(names) > 1
    for update in updates:
        balancer.step(update)
    targets = torch.stack([member.targets for member in balancer.copies])  # type: ignore[misc]
    assert (targets[0] != targets[1]).any(), "each with its own state"
    apart = Layerwise(UPGrad())
    agent, updates = build(spec, store, apart)
    gradients = updates[0].gradients()
    directions = {}
    for name in names:
        rows = gradients.pulled_back[:, updates[0].phase.space.slice_of(name)]
        directions[name] = UPGrad().weights(rows @ rows.T).to(rows) @ rows
    updates[0]._optimizer.settings = OptimizerSettings(clip=0.0)  # the gradient stays as it was given
    apart.step(updates[0])
    for name, expected in directions.items():
        torch.testing.assert_close(agent.get_parameter(name).grad.flatten(), expected)


def test_subsampled_lets_the_others_rest(spec: DataSpec, store: EpisodeStore) -> None:
    balancer = Subsampled(PCGrad(), tasks=2)
    agent, updates = build(spec, store, balancer)
    seen = set()
    for update in updates:
        before = agent.head.weight.detach().clone()
        balancer.step(update)
        moved = (agent.head.weight != before).any((1, 2))
        assert moved.sum() == 2 and torch.equal(moved, ~update.first_losses.isnan())
        seen.add(tuple(moved.tolist()))
    assert len(seen) > 1
    everything = Subsampled(Equal(), tasks=9)
    _, updates = build(spec, store, everything)
    everything.step(updates[0])
    assert not updates[0].first_losses.isnan().any()


def test_stages_that_work_on_whole_steps_stand_outside() -> None:
    for inner in (Reused(MGDA()), Layerwise(MGDA())):
        with pytest.raises(InputError, match=r"Averaged holds .*Put Averaged into"):
            Averaged(inner)
    Subsampled(Reused(Averaged(MGDA())))


def test_rescaling_keeps_the_direction_when_weights_sum_to_a_negative_number() -> None:
    class Odd(MGDA):
        def solve(self, gramian, losses, task_ids):  # type: ignore[no-untyped-def]
            return np.array([1.0, -3.0])

    assert Rescaled(Odd(), "sum_to_T").weights(torch.eye(2).double()).tolist() == [1.0, -3.0]


def test_reused_steps_treat_heads_alike(spec: DataSpec, store: EpisodeStore) -> None:
    balancer = Reused(MGDA(), every=2)
    agent, updates = build(spec, store, balancer)
    for update in updates[:2]:
        update._optimizer.settings = OptimizerSettings(lr=1e-9, clip=0.0)  # gradients stay as they were given
        balancer.step(update)
    gradient = agent.head.weight.grad.clone()
    (expected,) = torch.autograd.grad(updates[1].losses().values.sum(), [agent.head.weight])
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_composed_on_the_command_line_and_resumed(train_options: dict) -> None:
    options = {
        **train_options,
        "balancer": {
            "class_path": "Subsampled",
            "init_args": {
                "tasks": 2,
                "inner": {
                    "class_path": "Rescaled",
                    "init_args": {"inner": {"class_path": "Averaged", "init_args": {"inner": "GradVac"}}},
                },
            },
        },
    }
    run = train(**options)
    whole = run.checkpoints().load()
    run.checkpoints().file(30).unlink()
    train(resume=run.folder)
    again = run.checkpoints().load()
    for name, value in whole["agent"].items():
        assert torch.equal(value, again["agent"][name])
    averages = whole["balancers"]["policy"]["inner.inner.averages"]
    assert torch.equal(averages, again["balancers"]["policy"]["inner.inner.averages"]) and averages.isfinite().all()


def test_impossible_settings_are_refused() -> None:
    for make in (
        lambda: Prescaled(MGDA(), "last"),  # type: ignore[arg-type]
        lambda: Averaged(MGDA(), 1.0),
        lambda: Rescaled(MGDA(), "one"),  # type: ignore[arg-type]
        lambda: Reused(MGDA(), 0),
        lambda: Subsampled(MGDA(), 0),
    ):
        with pytest.raises(InputError, match="expected"):
            make()
