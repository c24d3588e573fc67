"""Cross-learning: centres and balls, and training that stays within them."""

import numpy as np
import pytest
import torch
from families import sampler_of
from torch import Tensor, nn

from mtorl import InputError
from mtorl.agents import TD3BC, BehaviorCloning, DualPolicy
from mtorl.agents.networks import PaCo
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.balancers import Equal, PCGrad
from mtorl.trainers.optimizer import OptimizerSettings
from mtorl.trainers.phase_trainer import PhaseTrainer, phase_sharing, phase_trainers
from mtorl.trainers.sharing import CrossLearning
from mtorl.trainers.sharing.balls import best_centre, distances
from tests.families import SMALL_AGENTS

VARIANTS = ["primal_dual", "projected"]


class Net(nn.Module):
    """Some tensors of different sizes, in double precision."""

    def __init__(self, *shapes: tuple[int, ...]) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        values = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
        self.parts = nn.ParameterList(values)


def member(net: Net, tasks: int, **options: object) -> tuple[CrossLearning, dict[str, Tensor]]:
    space = ParameterSpace(net)
    found = CrossLearning(**options)  # type: ignore[arg-type]
    found.init(space, tasks, torch.Generator())
    return found, space.values()


def settle(points: Tensor, **options: object) -> tuple[Tensor, Tensor]:
    """What becomes of points `[T, P]`, and their centre."""
    net = Net((points.shape[1],))
    found, parameters = member(net, len(points), variant="projected", relative=False, **options)
    found.values[0].data.copy_(points)
    found.after_step(parameters, torch.arange(len(points)))
    return found.values[0].detach(), net.parts[0].detach()


@pytest.mark.parametrize(
    ("points", "centre", "expected"),
    [((0, 2, 4), 2, (1, 2, 3)), ((0, 0, 6), 7 / 3, (4 / 3, 4 / 3, 10 / 3))],
)
def test_worked_examples(points: tuple[float, ...], centre: float, expected: tuple[float, ...]) -> None:
    found, middle = settle(torch.tensor(points, dtype=torch.float64)[:, None], epsilon=1)
    torch.testing.assert_close(middle, torch.tensor([centre], dtype=torch.float64), rtol=0, atol=1e-8)
    torch.testing.assert_close(found[:, 0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-8)


def test_the_ends_are_one_model_and_independent_ones() -> None:
    points = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for epsilon in (100.0, float("inf")):
        torch.testing.assert_close(settle(points, epsilon=epsilon)[0], points, rtol=1e-12, atol=1e-12)
    found, centre = settle(points, epsilon=0.0)
    torch.testing.assert_close(found, points.mean(0).expand_as(points), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(centre, points.mean(0), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_a_projection_is_feasible_idempotent_and_the_nearest(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    points = torch.randn(2 + seed, 9, dtype=torch.float64, generator=draw) * torch.rand(2 + seed, 1, generator=draw) * 5
    found, centre = settle(points, epsilon=1.5)
    assert float((found - centre).norm(dim=1).max()) <= 1.5 + 1e-6
    torch.testing.assert_close(settle(found, epsilon=1.5)[0], found, rtol=0, atol=1e-6)

    def cost(middle: Tensor) -> float:
        return float(((points - middle).norm(dim=1) - 1.5).clamp(min=0).square().sum())

    least = cost(centre)
    for _ in range(200):
        other = centre + 0.05 * torch.randn(9, dtype=torch.float64, generator=draw)
        assert cost(other) >= least - 1e-9


def test_inner_products_say_what_the_points_say() -> None:
    """The same steps on the points themselves."""
    points = 3 * torch.randn(6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    shares = best_centre((points @ points.T).numpy()[None], np.array([4.0]))
    centre = points.mean(0)
    for _ in range(2000):
        away = points - centre
        centre = centre + ((1 - 4 / away.norm(dim=1, keepdim=True)).clamp(min=0) * away).mean(0)
    torch.testing.assert_close(torch.from_numpy(shares[0]) @ points, centre, rtol=0, atol=1e-8)
    expected = (points - centre).norm(dim=1)
    found = distances((points @ points.T).numpy()[None], shares)[0]
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-8)


def test_multipliers_vanish_where_the_constraint_is_slack_and_hold_where_it_is_not() -> None:
    draw = torch.Generator().manual_seed(3)
    found, parameters = member(Net((6,), (4, 3)), 3, epsilon=1.0, relative=False, project_every=10**6)
    found.multipliers += 2
    pushes = torch.randn(3, 6, dtype=torch.float64, generator=draw)
    pushes -= pushes.mean(0)
    for _ in range(400):
        found.values[0].data.add_(0.05 * pushes)  # each on a way of its own; the other tensor rests
        found.after_step(parameters, torch.arange(3))
    assert not found.multipliers[1].any()
    away = (found.values[0] - parameters["parts.0"]).detach().norm(dim=1)
    assert bool((found.multipliers[0] > 0).any()) and 0.8 < float(away.max()) < 1.2


def test_radii_are_in_proportion_to_the_centres() -> None:
    net = Net((50,), (6, 6))
    norms = [float(part.detach().norm()) for part in net.parts]
    found, parameters = member(net, 4, epsilon=0.1, variant="projected")
    for value in found.values:
        value.data += torch.randn(value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found.after_step(parameters, torch.arange(4))
    for value, part, norm in zip(found.values, net.parts, norms, strict=True):
        assert float((value - part).detach().flatten(1).norm(dim=1).max()) == pytest.approx(0.1 * norm, rel=1e-6)


def trainers(agent: nn.Module, member: CrossLearning, balancer: object) -> list[PhaseTrainer]:
    settings = OptimizerSettings(lr=0.01, warmup=0, schedule="constant", weight_decay=0.1)
    return phase_trainers(agent, balancer, member, settings, 40, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("balancer", [Equal, PCGrad])
def test_the_agent_holds_the_centre_and_tasks_outside_a_batch_stay(
    variant: str, balancer: type, store: EpisodeStore, spec: DataSpec
) -> None:
    agent = BehaviorCloning(spec, hidden=(12, 12)).double()
    (phase,) = trainers(agent, CrossLearning(float("inf"), variant=variant), balancer())  # type: ignore[arg-type]
    batches = sampler_of(agent, store, spec)
    for step in range(4):
        phase.move(phase.update(batches.draw().to("cpu", torch.float64), step))
    sharing = phase.sharing
    assert isinstance(sharing, CrossLearning)
    resting = [value[1].detach().clone() for value in sharing.values]
    phase.move(phase.update(batches.draw().to("cpu", torch.float64).select([2, 0]), 4))
    for value, before in zip(sharing.values, resting, strict=True):
        torch.testing.assert_close(value[1].detach(), before, rtol=0, atol=1e-15)
        assert (value[0] != value[2]).any(), "the others differ"
    parameters = phase.functions.space.select(agent)
    (middle,) = sharing.without_task(parameters)
    for name, value in zip(sharing.own, sharing.values, strict=True):
        torch.testing.assert_close(middle[name], value.mean(0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sharing.effective(parameters, 2)[name], value[2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_a_ball_each_task_trains_as_if_alone(variant: str, store: EpisodeStore, spec: DataSpec) -> None:
    """Large epsilon: one independent model for every task. Heads are shared too, so nothing is left in common."""
    torch.manual_seed(0)
    agent = BehaviorCloning(spec, hidden=(12, 12), task_identity="none").double()
    start = {name: value.clone() for name, value in agent.state_dict().items()}
    settings = OptimizerSettings(lr=0.01, warmup=0, schedule="constant", clip=0, weight_decay=0.1)
    member = CrossLearning(float("inf"), variant=variant)  # type: ignore[arg-type]
    (phase,) = phase_trainers(agent, PCGrad(), member, settings, 40, seed=0)
    batches = [sampler_of(agent, store, spec, seed=step).draw().to("cpu", torch.float64) for step in range(5)]
    for step, batch in enumerate(batches):
        phase.move(phase.update(batch, step))
    alone = BehaviorCloning(spec, hidden=(12, 12), task_identity="none").double()
    for task in range(3):
        alone.load_state_dict(start)
        adam = torch.optim.AdamW(alone.parameters(), 0.01, weight_decay=0.1)
        for batch in batches:
            adam.zero_grad()
            alone(0, batch.select([task])).values.sum().backward()
            adam.step()
        found = phase.sharing.effective(phase.functions.space.select(agent), task)
        for name, value in alone.named_parameters():
            torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12)


def test_target_networks_keep_their_distance_from_the_agent(spec: DataSpec) -> None:
    """What only follows the agent's values is, for a task, as far from them as the task's own."""
    agent = TD3BC(spec, **SMALL_AGENTS[TD3BC]).double()
    sharing = phase_sharing(agent, CrossLearning(), 0)["critic"]
    assert isinstance(sharing, CrossLearning)
    name, value = sharing.own[0], sharing.values[0]
    value.data[1] += 1
    followed = {name: value[0].detach() - 0.5}
    torch.testing.assert_close(sharing.following(followed, 1)[name], value[1] - 0.5)


@pytest.mark.parametrize(
    ("agent", "options", "tensor"),
    [
        (BehaviorCloning, {"network": lambda *sizes: PaCo(*sizes, components=2, hidden=(8,))}, "backbone.layers.0"),
        (DualPolicy, SMALL_AGENTS[DualPolicy], "backbone"),
    ],
    ids=["PaCo", "two phases"],
)
def test_two_ways_of_sharing_one_tensor_are_refused(agent: type, options: dict, tensor: str, spec: DataSpec) -> None:
    with pytest.raises(InputError, match=f"own values of {tensor}.*one way of sharing"):
        phase_sharing(agent(spec, **options), CrossLearning(tensors="maskable"), 0)


@pytest.mark.parametrize("options", [{"epsilon": -1.0}, {"rate": 0.0}, {"tensors": "heads"}, {"variant": "dual"}])
def test_impossible_options(options: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} is"):
        CrossLearning(**options)
