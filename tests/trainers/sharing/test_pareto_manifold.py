"""Pareto manifolds: mixtures of members, the points of a step, and what balancers see of it."""

import math

import pytest
import torch
from families import sampler_of
from torch import Tensor

from mtorl import InputError
from mtorl.agents import BehaviorCloning, DecisionTransformer
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.balancers import FAMO, Balancer, Equal, FixedWeights, GeometricMean, PCGrad, Uncertainty
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.optimizer import OptimizerSettings
from mtorl.trainers.phase_trainer import PhaseTrainer, phase_trainers
from mtorl.trainers.sharing import ParetoManifold
from mtorl.trainers.sharing.pareto_manifold import Direction, disorder

RANKS = [None, 2]
TASKS = 3


def make_agent(spec: DataSpec) -> BehaviorCloning:
    torch.manual_seed(0)
    return BehaviorCloning(spec, hidden=(10, 8), task_identity="none").double()


def perturbed(agent: BehaviorCloning, rank: int | None, **options: object) -> ParetoManifold:
    """Members that differ."""
    member = ParetoManifold(rank, **options)  # type: ignore[arg-type]
    member.init(agent.phases[0].space, TASKS, torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    for value in member.parameters():
        value.data += 0.3 * torch.randn(value.shape, generator=draw, dtype=value.dtype)
    return member


def draw_batch(agent: BehaviorCloning, store: EpisodeStore, spec: DataSpec, seed: int = 3) -> TaskBatch:
    return sampler_of(agent, store, spec, seed=seed).draw().to("cpu", torch.float64)


def corner(task: int) -> tuple[float, ...]:
    return tuple(float(place == task) for place in range(TASKS))


def member_of(member: ParetoManifold, value: Tensor, number: int, task: int) -> Tensor:
    if member.rank is None:
        return member.members[number][task]
    return value + member.ups[number][task] @ member.downs[number][task]


@pytest.mark.parametrize("rank", RANKS)
def test_corners_are_the_members_and_points_their_mixtures(rank: int | None, spec: DataSpec) -> None:
    agent = make_agent(spec)
    member = perturbed(agent, rank, tensors="all")
    parameters = agent.phases[0].space.values()
    point = (0.2, 0.0, 0.8)
    assert member.own == tuple(n for n, it in parameters.items() if rank is None or it.ndim == 2)
    for number, name in enumerate(member.own):
        each = [member_of(member, parameters[name], number, task) for task in range(TASKS)]
        for task in range(TASKS):
            torch.testing.assert_close(member.at(corner(task)).effective(parameters, 0)[name], each[task])
            torch.testing.assert_close(member.effective(parameters, task)[name], each[task])
        torch.testing.assert_close(member.at(point).effective(parameters, 1)[name], 0.2 * each[0] + 0.8 * each[2])
        torch.testing.assert_close(member.without_task(parameters)[0][name], sum(each) / TASKS)
    halfway = ParetoManifold(rank, vertex_share=0.25)
    halfway._tasks = TASKS
    assert halfway.shares(1) == pytest.approx([0.25, 0.5, 0.25]) and halfway.shares(None) == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("rank", RANKS)
def test_equal_members_are_one_network(rank: int | None, store: EpisodeStore, spec: DataSpec) -> None:
    agent = make_agent(spec)
    member = ParetoManifold(rank, tensors="all")
    member.init(agent.phases[0].space, TASKS, torch.Generator().manual_seed(0))
    for value in member.parameters() if rank is None else ():
        value.data[:] = value[0].detach().clone()
    functions, batch = PhaseFunctions(agent), draw_batch(agent, store, spec)
    expected = agent(0, batch).values
    for point in ((0.2, 0.3, 0.5), corner(1)):
        torch.testing.assert_close(functions.losses(batch, member.at(point)).values, expected)


@pytest.mark.parametrize("rank", RANKS)
def test_gradients_of_members_are_in_proportion_to_their_shares(
    rank: int | None, store: EpisodeStore, spec: DataSpec
) -> None:
    agent = make_agent(spec)
    member = perturbed(agent, rank)
    if rank is not None:  # with the same factors, what is left is the share
        for value in member.parameters():
            value.data[:] = value[0].detach().clone()
    functions, batch, point = PhaseFunctions(agent), draw_batch(agent, store, spec), (0.5, 0.3, 0.2)
    functions.losses(batch, member.at(point)).values.sum().backward()
    for value in member.parameters():
        assert value.grad is not None and value.grad[0].any()
        for task, share in enumerate(point):
            torch.testing.assert_close(value.grad[task] / share, value.grad[0] / point[0], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize(
    ("direction", "losses", "expected"),
    [
        ("released", (0.5, 0.7, 0.6), math.log((math.exp(0.2) + 1) / 2)),
        ("monotone", (0.5, 0.7, 0.6), math.log((math.exp(0.1) + 1) / 2)),
        ("monotone", (0.5, 0.6, 0.7), 0.0),
        ("released", (0.7, 0.6, 0.5), 0.0),
        ("monotone", (0.5,), 0.0),
    ],
)
def test_disorder(direction: Direction, losses: tuple[float, ...], expected: float) -> None:
    """Losses in the order of falling shares; whatever the order in which the points were drawn."""
    count = len(losses)
    values = torch.tensor(losses, dtype=torch.float64)[:, None]
    shares = torch.arange(count, 0, -1)[:, None] / (count + 1)
    for order in (torch.arange(count), torch.arange(count).flip(0), torch.arange(count).roll(1)):
        found = disorder(values[order], shares[order], 1.0, direction)
        torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-12)
    twice = torch.cat([values, values])  # equal shares are told apart
    assert disorder(twice, torch.cat([shares, shares]), 1.0, direction).shape == (1,)


def test_the_regulariser_is_left_out_where_it_outweighs_the_losses() -> None:
    losses = torch.tensor([[0.1, 3.0], [2.0, 0.1]], dtype=torch.float64, requires_grad=True)
    shares = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)  # in order: no disorder
    flipped = shares.flip(0)
    gradients = []
    for points, weight in ((shares, 0.0), (shares, 1.0), (flipped, 0.5), (flipped, 1e6)):
        values = ParetoManifold(regularisation=weight).objectives(losses, points)
        torch.testing.assert_close(values, losses.mean(0))
        gradients.append(torch.autograd.grad(values.sum() / 2, losses)[0])
    torch.testing.assert_close(gradients[0], shares)
    torch.testing.assert_close(gradients[1], shares)
    torch.testing.assert_close(gradients[3], flipped)
    assert not torch.allclose(gradients[2], flipped)


def test_points_are_dirichlet() -> None:
    def draws(concentration: float, tasks: list[int], samples: int = 4000) -> Tensor:
        member = ParetoManifold(samples=samples, concentration=concentration)
        member._tasks, member._generator = 5, torch.Generator().manual_seed(2)
        return member.draw(torch.tensor(tasks))

    found = draws(1.0, [4, 0, 2])
    assert not found[:, [1, 3]].any() and found[:, [0, 2, 4]].min() >= 1e-7
    torch.testing.assert_close(found.sum(1), torch.ones(4000, dtype=torch.float64))
    torch.testing.assert_close(found[:, [0, 2, 4]].mean(0), torch.full((3,), 1 / 3).double(), rtol=0, atol=0.02)
    middle = draws(1e6, [0, 1, 2, 3, 4])
    torch.testing.assert_close(middle, torch.full_like(middle, 0.2), rtol=0, atol=0.01)
    assert torch.equal(draws(1.0, [3]), torch.tensor([[0.0, 0, 0, 1, 0]]).double()), "a single task has one point"


def one_trainer(agent: BehaviorCloning, member: ParetoManifold, balancer: Balancer) -> PhaseTrainer:
    settings = OptimizerSettings(lr=0.01, warmup=0, schedule="constant", clip=0, weight_decay=0)
    return phase_trainers(agent, balancer, member, settings, 40, seed=0)[0]


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("weights", [None, (0.2, 0.5, 0.3)], ids=["equal", "fixed"])
def test_a_step_descends_the_share_weighted_losses(
    rank: int | None, weights: tuple[float, ...] | None, store: EpisodeStore, spec: DataSpec
) -> None:
    """`sum_points sum_i a_i L_i(theta(a))`; weights of balancers, as multiples of 1/T, are factors."""
    agent = make_agent(spec)
    balancer = Equal() if weights is None else FixedWeights(weights)
    phase = one_trainer(agent, ParetoManifold(rank, samples=3), balancer)
    member, batch = phase.sharing, draw_batch(agent, store, spec)
    assert isinstance(member, ParetoManifold)
    state = member.get_extra_state()
    points = member.draw(torch.arange(TASKS))
    member.set_extra_state(state)
    total = torch.zeros((), dtype=torch.float64)
    for point in points:
        losses = phase.functions.losses(batch, member.at(tuple(point.tolist()))).values
        total = (
            total
            + (point * losses * (1 if weights is None else TASKS * torch.tensor(weights, dtype=torch.float64))).sum()
        )
    moved = [*member.parameters(), *agent.parameters()]
    expected = torch.autograd.grad(total, moved, allow_unused=True)
    update = phase.update(batch, 0)
    phase.move(update)
    for parameter, gradient in zip(moved, expected, strict=True):
        if gradient is not None:
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-9, atol=1e-14)
    assert bool(update.first_losses.isfinite().all())


@pytest.mark.parametrize("balancer", [FAMO, GeometricMean, Uncertainty], ids=lambda kind: kind.__name__)
def test_weights_come_from_the_losses_themselves(balancer: type, store: EpisodeStore, spec: DataSpec) -> None:
    """Not from those that shares have made small: with weights 1 / loss these would undo the shares."""
    agent = make_agent(spec)
    phase = one_trainer(agent, ParetoManifold(), balancer())
    for step in range(3):
        update = phase.update(draw_batch(agent, store, spec, step), step)
        phase.move(update)
    values = torch.tensor([[2.0, 8.0]], dtype=torch.float64, requires_grad=True)
    shares = torch.tensor([[0.9, 0.1]], dtype=torch.float64)
    method = GeometricMean()
    seen = ParetoManifold().objectives(values, shares)
    (method.weights(seen, torch.arange(2)) * seen).sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.tensor([[0.9 * 2, 0.1 / 2]], dtype=torch.float64))


def test_other_balancers_are_refused(store: EpisodeStore, spec: DataSpec) -> None:
    agent = make_agent(spec)
    phase = one_trainer(agent, ParetoManifold(), PCGrad())
    with pytest.raises(InputError, match=r"ParetoManifold .* PCGrad .* weights losses, such as Equal"):
        phase.move(phase.update(draw_batch(agent, store, spec), 0))


def test_training_specialises_the_members(store: EpisodeStore, spec: DataSpec) -> None:
    """Conflicting tasks (towards and away), of which the network is not told: each is better at its own corner."""
    agent = make_agent(spec)
    phase = one_trainer(agent, ParetoManifold(rank=4, samples=2), Equal())
    for step in range(40):
        phase.move(phase.update(draw_batch(agent, store, spec, step), step))
    batch, member = draw_batch(agent, store, spec, 99), phase.sharing
    each = torch.stack([phase.functions.losses(batch, member.at(corner(task))).values for task in range(TASKS)])
    own, others = each.diagonal(), (each.sum(0) - each.diagonal()) / (TASKS - 1)
    assert bool((own < others).all())


@pytest.mark.parametrize(("tasks", "count"), [(1, 0), (2, 11), (3, 21), (4, 5), (10, 11)])
def test_points_along_the_manifold(tasks: int, count: int) -> None:
    member = ParetoManifold()
    member._tasks = tasks
    points = member.points()
    assert len(points) == len(set(points)) == count
    for point in points:
        assert sum(point) == pytest.approx(1) and member.at(point).shares(0) == list(point)
    with pytest.raises(InputError, match=f"expected {tasks} shares"):
        member.at((0.5,) * (tasks + 1))


def test_full_members_begin_apart_and_of_one_size(spec: DataSpec) -> None:
    agent = make_agent(spec)
    member = ParetoManifold(None, tensors="all")
    member.init(agent.phases[0].space, TASKS, torch.Generator().manual_seed(0))
    for name, value in zip(member.own, member.members, strict=True):
        assert torch.equal(value[0], agent.get_parameter(name))
        for other in value[1:]:
            assert torch.equal(other.flatten().sort().values, value[0].flatten().sort().values)
        assert value.ndim == 2 or len(value[0].unique()) == 1 or not torch.equal(value[0], value[1])


def test_sizes_are_those_of_the_parameters(spec: DataSpec) -> None:
    agent = DecisionTransformer(spec, width=16, layers=1, attention_heads=2, context=4)
    for rank in (None, 3):
        member = ParetoManifold(rank)
        member.init(agent.phases[0].space, TASKS, torch.Generator())
        space = agent.phases[0].space
        assert member.size(space, TASKS) == sum(it.numel() for it in member.parameters())
        assert member.size(space, 1) == 0
