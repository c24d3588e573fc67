"""GradTAG: the linear algebra is that of least squares, and predictions of the network near its parameters."""

import numpy as np
import pytest
import torch
from families import SMALL_AGENTS, sampler_of
from torch import Tensor

from mtorl import InputError
from mtorl.agents import Agent, BehaviorCloning, DecisionTransformer, SoftModular
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers import GradTAG
from mtorl.trainers.groupers.clusters import grouping
from mtorl.trainers.groupers.grad_tag import affinity, moved_names
from mtorl.trainers.groupers.linearised import Linearisation, LinearisedLosses
from mtorl.trainers.groupers.sketch import Sketch
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def least_squares(tasks: int = 4, rows: int = 40, size: int = 6) -> tuple[LinearisedLosses, Tensor, Tensor]:
    """A linear model at zero, with its inputs `[T, n, d]` and targets `[T, n]`."""
    inputs = torch.randn(tasks, rows, size, dtype=torch.float64, generator=seeded())
    targets = torch.randn(tasks, rows, dtype=torch.float64, generator=seeded(1))
    curvature, slope = inputs.mT @ inputs / rows, (inputs.mT @ targets[..., None])[..., 0] / rows
    return (
        LinearisedLosses(curvature, slope, targets.square().mean(1), torch.ones(size, dtype=torch.float64), 1.0),
        inputs,
        targets,
    )


def every_pair(tasks: int) -> Tensor:
    """All sets of one and of two tasks, bool."""
    eye = torch.eye(tasks, dtype=torch.bool)
    return torch.cat([eye, *[eye[[one]] | eye[[other]] for one in range(tasks) for other in range(one)]])


def test_predictions_are_least_squares() -> None:
    losses, inputs, targets = least_squares()
    subsets = every_pair(4)
    predicted = losses.predicted(subsets, 1e-12)
    for subset, row in zip(subsets, predicted, strict=True):
        found = torch.linalg.lstsq(inputs[subset].flatten(0, 1), targets[subset].flatten()[:, None]).solution[:, 0]
        torch.testing.assert_close(row, (targets - inputs @ found).square().mean(1), rtol=0, atol=1e-6)


def test_a_task_alone_does_best_for_itself() -> None:
    losses, *_ = least_squares()
    predicted = losses.predicted(every_pair(4), 1e-12)
    for task in range(4):
        assert int(predicted[:, task].argmin()) == task


@pytest.mark.parametrize("limit", [0.3, 0.05, 1e-3])
def test_the_ridge_keeps_moves_short(limit: float) -> None:
    losses, *_ = least_squares()
    subsets = every_pair(4)
    lengths = losses.lengths(losses.moves(subsets, losses.choose_ridge(subsets, limit)))
    assert 0.99 * limit < float(lengths.median()) <= limit


def test_a_sketch_keeps_inner_products() -> None:
    shapes = {"a": (30, 25), "b": (30,), "c": (7, 30)}
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    draw = seeded(3)
    vectors = {name: torch.randn(2, *shape, dtype=torch.float64, generator=draw) for name, shape in shapes.items()}
    flat = torch.cat([value.flatten(1) for value in vectors.values()], 1)
    whole = Sketch(shapes, size, draw)
    torch.testing.assert_close(whole(vectors) @ whole(vectors).T, flat @ flat.T)
    assert whole.dimension == size and whole.counts.eq(1).all()
    seen = []
    for seed in range(300):
        small = Sketch(shapes, 100, seeded(seed))
        assert small.dimension == 101 and int(small.counts.sum()) == size, "100 has factors in common with the widths"
        seen.append(small(vectors) @ small(vectors).T)
    lengths = torch.stack(seen).diagonal(dim1=1, dim2=2) / (flat @ flat.T).diagonal()
    assert (lengths.mean(0) - 1).abs().max() < 3 / 101**0.5
    torch.testing.assert_close(torch.stack(seen).mean(0), flat @ flat.T, rtol=0.05, atol=40)


@pytest.fixture(params=[BehaviorCloning, DecisionTransformer], ids=lambda kind: kind.__name__)
def agent(request: pytest.FixtureRequest, spec: DataSpec) -> Agent:
    options = SMALL_AGENTS[request.param] | ({"hidden": (6, 5)} if request.param is BehaviorCloning else {"width": 8})
    with isolated(0, "init"):
        return request.param(spec, **options).double().eval()


@pytest.mark.parametrize("kind", [Shared, RandomMasks])
def test_gathered_averages_are_those_of_the_network(
    agent: Agent, kind: type, store: EpisodeStore, spec: DataSpec
) -> None:
    """Losses and slopes exactly; curvatures as the mean over signs of the products of all outputs' gradients."""
    sharing: Sharing = kind()
    sharing.init(agent.phases[0].space, 3, seeded())
    functions = PhaseFunctions(agent)
    names = moved_names(functions.space, "last_half")
    batch = sampler_of(agent, store, spec).draw().to("cpu", torch.float64)
    size = sum(functions.space.select(agent)[name].numel() for name in names)
    found = Linearisation(functions, sharing, names, size, seeded(), chunk=2).gather([batch])
    dense, _ = functions.gradients(batch, sharing)
    torch.testing.assert_close(found.losses, dense.losses)
    signs = Linearisation(functions, sharing, names, size, seeded())._sketch
    expected = signs(
        {name: functions.space.unflatten(row)[name][None] for row in dense.pulled_back[:1] for name in names}
    )
    torch.testing.assert_close(found.slope[0], -expected[0] / 2, rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(
        found.length, float(torch.cat([functions.space.select(agent)[n].flatten() for n in names]).norm())
    )
    assert found.slope.shape[1] == size
    traces = [
        Linearisation(functions, sharing, names, size, seeded(seed))
        .gather([batch])
        .curvature.diagonal(dim1=1, dim2=2)
        .sum(1)
        for seed in range(12)
    ]
    torch.testing.assert_close(torch.stack(traces).mean(0), _traces(functions, sharing, names, batch), rtol=0.5, atol=0)


def _traces(functions: PhaseFunctions, sharing: Sharing, names: list[str], batch: TaskBatch) -> Tensor:
    """The sums of squares of all outputs' gradients, mean over outputs, one output after the other."""
    shared = functions.space.select(functions.agent)
    found = []
    for row, task in enumerate(batch.task_ids.tolist()):
        alone = batch.select([row])
        predictions = functions.at(shared, alone, sharing, task).predictions
        assert predictions is not None
        outputs = predictions[0][alone.valid[0]].flatten()
        moved = [shared[name] for name in names]
        each = [torch.autograd.grad(it, moved, retain_graph=True) for it in outputs]
        found.append(torch.stack([sum(part.square().sum() for part in parts) for parts in each]).mean())  # type: ignore[arg-type]
    return torch.stack(found)


def test_short_moves_do_what_was_predicted(store: EpisodeStore, spec: DataSpec) -> None:
    """The network's own losses after the predicted moves, of one action dimension where signs cancel nothing."""
    with isolated(0, "init"):
        agent = BehaviorCloning(spec, hidden=(12, 12), task_identity="none").double().eval()
    functions, sampler = PhaseFunctions(agent), sampler_of(agent, store, spec, windows=200)
    names = moved_names(functions.space, "matrices")
    shared = {name: value.detach() for name, value in functions.space.select(agent).items()}
    size = sum(shared[name].numel() for name in names)
    linear = Linearisation(functions, Shared(), names, size, seeded())
    batch = sampler.draw().to("cpu", torch.float64)
    losses = linear.gather([batch])
    subsets = every_pair(3)
    moves = losses.moves(subsets, losses.choose_ridge(subsets, 0.02))
    signs = torch.cat([linear._sketch._signs[name] for name in names]).double()
    for move, predicted in zip(moves, losses.after(moves), strict=True):
        step, after, place = signs * move, dict(shared), 0
        for name in names:
            part = step[place : place + shared[name].numel()]
            after[name], place = shared[name] + part.view_as(shared[name]), place + len(part)
        real = torch.func.functional_call(agent, after, (0, batch)).values
        torch.testing.assert_close(real - losses.losses, predicted - losses.losses, rtol=0.2, atol=2e-4)


def test_sets_of_tasks() -> None:
    for tasks, size, count in ((8, 4, 70), (3, 2, 3), (2, 2, 1), (1, 1, 1), (50, 10, 2000)):
        subsets = GradTAG().draw(tasks, seeded())
        assert subsets.shape == (count, tasks) and (subsets.sum(1) == size).all()
        assert (subsets.double().T @ subsets.double() > 0).all()
    few = GradTAG(subsets=3, subset_size=3).draw(9, seeded())
    assert (few.double().T @ few.double() > 0).all(), "every two tasks are together somewhere"


def families(tasks: int = 6, rows: int = 60) -> LinearisedLosses:
    """Linear models of which half want the opposite of the others; the last two of each half are the same task."""
    inputs = torch.randn(tasks, rows, 5, dtype=torch.float64, generator=seeded())
    sign = torch.tensor([1.0, -1.0]).repeat_interleave(tasks // 2)[:, None]
    targets = sign * inputs.sum(-1) + 0.3 * torch.randn(tasks, rows, dtype=torch.float64, generator=seeded(2))
    for half in (0, tasks // 2):
        inputs[half + 2], targets[half + 2] = inputs[half + 1], targets[half + 1]
    slope = (inputs.mT @ targets[..., None])[..., 0] / rows
    return LinearisedLosses(inputs.mT @ inputs / rows, slope, targets.square().mean(1), torch.ones(5).double(), 1.0)


def test_opposite_families_are_apart_and_duplicates_together() -> None:
    losses, subsets = families(), GradTAG(subset_size=3).draw(6, seeded())
    found = affinity(losses.predicted(subsets, 1e-3).numpy(), subsets.numpy())
    others = ~np.eye(6, dtype=bool)
    same = np.equal.outer([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1])
    assert found[same & others].min() > found[~same].max()
    names = tuple("abcdef")
    assert grouping(found, names, 2, 0, "").labels == (0, 0, 0, 1, 1, 1)
    assert grouping(found, names, 1, 0, "").labels == (0,) * 6
    assert grouping(found, names, 6, 0, "").labels == (0, 1, 2, 3, 4, 5)
    four = grouping(found, names, 4, 0, "").labels
    assert four[1] == four[2] and four[4] == four[5]
    np.testing.assert_allclose(found[1], found[2][[0, 2, 1, 3, 4, 5]], atol=1e-9, err_msg="the same task twice")


def test_the_order_of_sets_is_irrelevant() -> None:
    losses, subsets = families(), GradTAG(subset_size=3).draw(6, seeded())
    order = torch.randperm(len(subsets), generator=seeded(5))
    first, second = (affinity(losses.predicted(it, 1e-3).numpy(), it.numpy()) for it in (subsets, subsets[order]))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-9)


def test_long_moves_are_warned_of(store: EpisodeStore, spec: DataSpec) -> None:
    agent = BehaviorCloning(spec, hidden=(8,))
    grouper = GradTAG(windows=5, dimension=20, ridge=1e-9)
    with pytest.warns(UserWarning, match=r"half of the moves are longer than .*beyond 1.0%.*Raise --method.ridge"):
        grouper.fit(PhaseFunctions(agent), Shared(), sampler_of(agent, store, spec), 2)


def test_agents_with_other_losses_are_refused_by_name(store: EpisodeStore, spec: DataSpec) -> None:
    agent = SoftModular(spec, **SMALL_AGENTS[SoftModular], distribution="gaussian")
    with pytest.raises(InputError, match="loss of the phase policy of SoftModular is no squared error"):
        GradTAG(windows=5).fit(PhaseFunctions(agent), Shared(), sampler_of(agent, store, spec), 2)
    for options, message in (
        ({"subset_size": 1}, "subset_size is 1; expected at least 2"),
        ({"moved": "some"}, "moved is 'some'; expected one of last_half, matrices, all"),
        ({"limit": 0.0}, "limit is 0.0; expected a positive number"),
    ):
        with pytest.raises(InputError, match=message):
            GradTAG(**options)  # type: ignore[arg-type]


def test_what_moves(spec: DataSpec) -> None:
    space = BehaviorCloning(spec, hidden=(8, 8, 8)).phases[0].space
    assert moved_names(space, "last_half") == ["backbone.layers.1.weight", "backbone.layers.2.weight"]
    assert moved_names(space, "all") == list(space.names)
