"""Priorities, projections and phases of connection-strength based optimization."""

import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.agents import BehaviorCloning, DecisionTransformer, SoftModular
from mtorl.agents.base import Agent
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.balancers import ConnectionStrength
from mtorl.trainers.balancers.connection_strength import conserved_priority, top_task
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing
from mtorl.trainers.update import MultiTaskUpdate

WEIGHT = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
ROWS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[-1.0, 1.0], [0.0, -1.0]]])


def test_priority_and_projection_by_hand() -> None:
    gains = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    strengths = gains.square() * WEIGHT.square().sum(1)
    shares = strengths / strengths.sum(1, keepdim=True)
    np.testing.assert_allclose(shares, [[0.5, 0.5], [1 / 17, 16 / 17]], rtol=1e-6)
    top = top_task(strengths)
    assert top.tolist() == [0, 1]
    assert (ROWS.sum(0) + conserved_priority(ROWS, top)).tolist() == [[1, 1], [0, -1]]


def test_one_task_on_top_everywhere_is_the_plain_sum() -> None:
    top = top_task(torch.tensor([[4.0, 4.0], [4.0, 4.0]]))
    assert not conserved_priority(ROWS, top).any()


def test_properties() -> None:
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        rows = torch.randn(4, 6, 5, dtype=torch.float64, generator=draw)
        strengths = torch.rand(4, 6, dtype=torch.float64, generator=draw)
        top = top_task(strengths)
        assert torch.equal(top, top_task(strengths * torch.tensor([[1.0], [7.0], [0.1], [3.0]])))
        for task in top.unique().tolist():
            channels = top == task
            reference = rows[task, channels].flatten()
            for other in range(4):
                gradient = rows[other, channels].flatten()
                product = gradient @ reference
                projected = gradient - product.clamp(max=0) / reference.square().sum() * reference
                assert projected @ reference >= -1e-9
        expected = torch.zeros(6, 5, dtype=torch.float64)
        for task in top.unique().tolist():
            channels = top == task
            reference = rows[task, channels]
            for other in range(4):
                product = (rows[other, channels] * reference).sum()
                share = product.clamp(max=0) / reference.square().sum() if other != task else 0
                expected[channels] += rows[other, channels] - share * reference
        torch.testing.assert_close(rows.sum(0) + conserved_priority(rows, top), expected)
        assert not conserved_priority(rows.abs(), top).any(), "no conflict: bit for bit the sum"
    assert torch.isfinite(conserved_priority(torch.zeros(2, 3, 4), torch.tensor([0, 1, 0]))).all()


def build(
    agent: Agent, store: EpisodeStore, spec: DataSpec, balancer: ConnectionStrength, sharing: Sharing, index: int = 0
) -> MultiTaskUpdate:
    functions = PhaseFunctions(agent)
    optimizer = PhaseOptimizer(OptimizerSettings(warmup=0), agent, [], agent.task_rows(), 10)
    batch = TaskSampler([store], spec.task_names, 5, agent.window, np.random.default_rng(0)).draw()
    balancer.init(3, functions.space, torch.Generator().manual_seed(0))
    sharing.init(functions.space, 3, torch.Generator().manual_seed(0))
    return MultiTaskUpdate(functions, optimizer, batch, sharing, index, 10, seed=0)


SMALL = {"width": 16, "layers": 2, "attention_heads": 2, "context": 4, "dropout": 0.0}


@pytest.mark.parametrize("kind", [BehaviorCloning, DecisionTransformer])
@pytest.mark.parametrize(
    ("strength", "options", "sharing", "layers"),
    [
        ("task_affine", {"task_gain": True}, Shared(), 2),
        ("head_link", {"output_heads": "per_task"}, Shared(), 1),
        ("harmony_mask", {}, RandomMasks(0.5), None),
        ("auto", {"task_gain": True, "output_heads": "per_task"}, Shared(), 2),
    ],
)
def test_every_kind_of_connection(
    kind: type, strength: str, options: dict, sharing: Sharing, layers: int | None, spec: DataSpec, store: EpisodeStore
) -> None:
    agent = kind(spec, **(SMALL if kind is DecisionTransformer else {"hidden": (16, 16)}), **options)
    balancer = ConnectionStrength(strength, phases="second")  # type: ignore[arg-type]
    update = build(agent, store, spec, balancer, sharing)
    links = balancer._links(update)
    if layers is None:
        layers = sum(update.phase.space.maskable)
    assert len(links) == layers
    for name, strengths in links.items():
        assert strengths.shape == (3, dict(agent.named_parameters())[name].shape[0]) and (strengths >= 0).all()
    numbers = balancer.step(update)
    assert numbers["second_phase"] == 1 and not update.first_losses.isnan().any()


@pytest.mark.parametrize("strength", ["route", "auto"])
def test_routing_is_a_connection(strength: str, spec: DataSpec, store: EpisodeStore) -> None:
    """Squared share of each module in the mixtures that read it, times the squared weights of the channel."""
    small = {"modules": 3, "layers": 2, "width": 8, "base": (12,), "gating": (8,)}
    agent = SoftModular(spec, routing="task", **small)
    links = ConnectionStrength(strength)._links(  # type: ignore[arg-type]
        build(agent, store, spec, ConnectionStrength(), Shared())
    )
    assert list(links) == ["backbone.layers.0.weight", "backbone.layers.1.weight"]
    mixtures = agent.backbone.weights(torch.zeros(3, 12), torch.eye(3))
    weights = dict(agent.named_parameters())
    for (name, strengths), mixture in zip(links.items(), mixtures, strict=True):
        shares = mixture.square().mean(1) if mixture.ndim == 3 else mixture.square()
        for row in range(24):
            expected = shares[:, row // 8] * weights[name][row].square().sum()
            torch.testing.assert_close(strengths[:, row], expected.detach())
    transformer = DecisionTransformer(spec, **SMALL, ffn="soft_modules", modules=4)
    update = build(transformer, store, spec, ConnectionStrength(), Shared())
    balancer = ConnectionStrength(strength, phases="second")  # type: ignore[arg-type]
    balancer.init(3, update.phase.space, torch.Generator().manual_seed(0))
    assert [tuple(matrix.shape) for matrix in balancer._links(update).values()] == [(3, 64), (3, 64)]
    assert balancer.step(update)["second_phase"] == 1
    by_state = build(SoftModular(spec, **small), store, spec, ConnectionStrength(), Shared())
    with pytest.raises(InputError, match=r"--agent\.routing task"):
        ConnectionStrength("route")._links(by_state)


def test_an_agent_without_connections_is_refused(spec: DataSpec, store: EpisodeStore) -> None:
    balancer = ConnectionStrength()
    update = build(BehaviorCloning(spec, hidden=(8,)), store, spec, balancer, Shared())
    with pytest.raises(InputError, match=r"no connection of single tasks.*--agent\.task_gain true"):
        balancer.step(update)


def test_the_second_phase_becomes_more_likely(spec: DataSpec, store: EpisodeStore) -> None:
    balancer = ConnectionStrength()
    agent = BehaviorCloning(spec, hidden=(8,), output_heads="per_task")
    shares = []
    for index in (0, 5, 9):
        update = build(agent, store, spec, balancer, Shared(), index)
        shares.append(np.mean([balancer.step(update)["second_phase"] for _ in range(60)]))
    assert shares[0] == 0 and 0.25 < shares[1] < 0.75 and shares[2] > 0.75


def test_tasks_step_in_turn_and_move_only_their_own_heads(
    spec: DataSpec, store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    balancer = ConnectionStrength(phases="first")
    agent = BehaviorCloning(spec, hidden=(8,), output_heads="per_task")
    update = build(agent, store, spec, balancer, Shared())
    seen = []
    real = MultiTaskUpdate.descend_loss

    def descend(self, loss, weights=None):  # type: ignore[no-untyped-def]
        before = agent.head.weight.detach().clone()
        numbers = real(self, loss, weights)
        seen.append((agent.head.weight != before).any((1, 2)).nonzero().flatten().tolist())
        return numbers

    monkeypatch.setattr(MultiTaskUpdate, "descend_loss", descend)
    balancer.step(update)
    assert seen == [[0], [1], [2]]


def test_a_phase_can_last_a_period(spec: DataSpec, store: EpisodeStore) -> None:
    balancer = ConnectionStrength(granularity="period", period=4)
    agent = BehaviorCloning(spec, hidden=(8,), output_heads="per_task")
    update = build(agent, store, spec, balancer, Shared(), index=5)
    drawn = [balancer.step(update)["second_phase"] for _ in range(40)]
    assert all(len(set(drawn[start : start + 4])) == 1 for start in range(0, 40, 4)) and len(set(drawn)) == 2


def test_impossible_settings_are_refused() -> None:
    for options in ({"strength": "luck"}, {"phases": "third"}, {"granularity": "epoch"}, {"period": 0}):
        with pytest.raises(InputError, match="expected"):
            ConnectionStrength(**options)
