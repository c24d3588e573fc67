"""What every balancing optimizer must do."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from families import BALANCERS as ALL
from families import WRAPPERS, run_options
from torch import Tensor, nn

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets import Episode, StoreWriter
from mtorl.envs import PointReach
from mtorl.envs.protocol import Protocol
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers import balancers
from mtorl.trainers.balancers import (
    Balancer,
    FixedWeights,
    GradientAggregation,
    LossWeighting,
    MatrixAggregation,
    PCGrad,
    TorchJD,
)
from mtorl.trainers.gradients import gramian
from mtorl.trainers.logs import read_log
from mtorl.trainers.offline import TIMING_ENTRIES

SPECIAL: dict[type, Callable[[int], Balancer]] = {
    FixedWeights: lambda tasks: FixedWeights([1.0 / tasks] * tasks),
    TorchJD: lambda tasks: TorchJD("MGDA", {"epsilon": 1e-9, "max_iters": 1000}),
    **{kind: (lambda tasks, kind=kind: kind(PCGrad())) for kind in WRAPPERS},
}
"""Constructors that need an argument."""
GRAMIAN = [kind for kind in ALL if issubclass(kind, GradientAggregation)]
MATRIX = [kind for kind in ALL if issubclass(kind, MatrixAggregation)]
LOSS = [kind for kind in ALL if issubclass(kind, LossWeighting)]
RANDOM = {*(kind.__name__ for kind in WRAPPERS), "PCGrad", "GradVac", "WeightedPCGrad", "GradDrop", "RandomWeighting"}
STATEFUL = {"CDTT", "GradNorm", "GradVac", "WeightedPCGrad"}


def make(kind: type, tasks: int = 4, size: int = 9, seed: int = 0) -> Balancer:
    balancer = SPECIAL.get(kind, lambda _: kind())(tasks)
    module = nn.Module()
    module.register_parameter("flat", nn.Parameter(torch.zeros(size)))
    balancer.init(tasks, ParameterSpace(module), torch.Generator().manual_seed(seed))
    return balancer


def names(kinds: list[type]) -> list:
    return [pytest.param(kind, id=kind.__name__) for kind in kinds]


def matrices() -> list:
    """Task gradients of every rank, shape of spectrum and scale, and the degenerate ones."""
    draw = torch.Generator().manual_seed(1)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    found = {}
    for tasks, rank in ((1, 1), (2, 1), (2, 2), (3, 2), (5, 5), (8, 3), (8, 8)):
        for scale in (1e-8, 1.0, 1e6):
            found[f"T{tasks}-rank{rank}-scale{scale:g}"] = scale * randn(tasks, rank) @ randn(rank, 12)
    found["unequal"] = torch.diag(torch.tensor([1e-4, 1.0, 1e3, 1.0], dtype=torch.float64)) @ randn(4, 9)
    found["duplicates"] = randn(3, 9)[[0, 0, 1, 2, 2]]
    found["zero row"] = randn(4, 9) * torch.tensor([[1.0], [0.0], [1.0], [1.0]])
    found["all zero"] = torch.zeros(3, 9, dtype=torch.float64)
    found["opposed"] = torch.tensor([[1.0, 0.0], [-2.0, 0.0]], dtype=torch.float64)
    found["all alike"] = randn(1, 9).repeat(4, 1)
    found["stationary"] = torch.tensor([[1.0, 0.0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]], dtype=torch.float64)
    return [pytest.param(matrix, id=name) for name, matrix in found.items()]


@cache
def singular(size: int) -> list:
    """Single precision gradients of that length that depend on each other up to rounding, in every usual way.

    Each with its name and its Gramian.
    """
    found = []
    for seed in range(2):
        draw = torch.Generator().manual_seed(seed)
        g, h, k, other = torch.randn(4, size, generator=draw)
        s, r = (0.1 + 3 * torch.rand(2, generator=draw)).tolist()
        kinds = {
            "opposed": [g, -s * g, h],
            "pair": [g, -g / 3],
            "line": [g, s * g, -r * g],
            "sum": [g, h, -(s * g + r * h), k],
            "cancel": [g, h, -g - h],
            "repeated": [g, g, h, h, -s * h],
            "repeated, scaled": [g, s * g, 1e-3 * g, h],
            "small": [g, 1e-4 * h, -1e-4 * s * h, k],
            "large": [1e4 * g, -1e4 * s * g, h],
            "nearly opposed": [g, -g + 1e-3 * h, k, -k],
            "more nearly": [g, -g + 1e-4 * h, k],
            "hardly apart": [g, -g + 1e-6 * h, k, g],
            "two pairs": [g, h, k, -(g + h), -s * (h + k), other, -r * other],
            "all in pairs": [g, h, k, other, -s * g, -r * h, -k, -other],
        }
        for name, vectors in kinds.items():
            rows = torch.stack(vectors)
            found.append((f"{name}, draw {seed}", rows, gramian(rows)))
    return found


def direct(balancer: Balancer, rows: Tensor, **more: Tensor) -> Tensor:
    if isinstance(balancer, MatrixAggregation):
        return balancer.aggregate(rows, **more)
    assert isinstance(balancer, GradientAggregation)
    return balancer.weights(rows @ rows.T, **more) @ rows


def test_every_balancer_is_shown() -> None:
    assert {kind.__name__ for kind in ALL} <= set(balancers.__all__)


@pytest.mark.parametrize("rows", matrices())
@pytest.mark.parametrize("kind", names([*GRAMIAN, *MATRIX]))
def test_the_direction_is_finite_whatever_the_gradients(kind: type, rows: Tensor) -> None:
    balancer = make(kind, *rows.shape)
    changes = kind.__name__ in RANDOM or balancer.state_dict().keys() != {"_extra_state"}
    for _ in range(13 if changes else 1):  # past every warm-up of windows
        found = direct(balancer, rows, losses=torch.rand(len(rows)) + 0.1)
        assert found.shape == (rows.shape[1],) and torch.isfinite(found).all()
    if not rows.any():
        assert not found.any()


def longest(kind: type, rows: Tensor) -> float:
    """What no direction of this method can be longer than, up to rounding."""
    norms = rows.norm(dim=1)
    of_one = {"CAGrad": 1.5 * float(norms.max()), "NashMTL": 1.0, "FairGrad": len(rows) ** 0.5}
    of_sums = ("ConFIG", "GradNorm", "GradVac", "IMTLG", "PCGrad", "WeightedPCGrad", *(it.__name__ for it in WRAPPERS))
    return of_one.get(kind.__name__, float(norms.sum() if kind.__name__ in of_sums else norms.max()))


UNHURT = ("MGDA", "UPGrad", "DualProj", "CDTT", "NashMTL", "FairGrad")
"""Methods whose directions hurt no task, whatever the gradients."""


@pytest.mark.parametrize("size", [3, 1000, 70_000])
@pytest.mark.parametrize("kind", names(GRAMIAN))
def test_gradients_that_depend_on_each_other(kind: type, size: int) -> None:
    """Duplicated tasks, opposed ones, sums of others: directions of a sound length, that single precision can add up.

    Lengths and products are those of the rows themselves, not of the Gramian that the method saw.
    """
    for name, single, products in singular(size):
        rows = single.double()
        limit = longest(kind, rows)
        weights = make(kind, len(rows), size).weights(products).detach()
        found = weights @ rows
        assert found.norm() <= 1.1 * limit, f"{name}: longer than any direction can be"
        apart = (weights.float() @ single).double() - found
        assert apart.norm() <= 2e-3 * limit, f"{name}: weights of {weights.abs().max():.3g} drown the direction"
        if kind.__name__ in UNHURT:
            least = ((rows @ found) / rows.norm(dim=1)).min()
            assert least >= -2e-3 * limit, f"{name}: a task is hurt by {least:.3g}"


@pytest.mark.parametrize("kind", names(GRAMIAN))
def test_a_vanished_gradient_has_no_weight_and_no_influence(kind: type) -> None:
    rows = torch.randn(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    rows[2] = 0
    balancer, without = make(kind), make(kind)
    kept = torch.tensor([0, 1, 3])
    weights = balancer.weights(rows @ rows.T)
    assert weights[2] == 0
    expected = without.weights(rows[kept] @ rows[kept].T, task_ids=kept)
    torch.testing.assert_close(weights[kept], expected)


@pytest.mark.parametrize("kind", names(GRAMIAN))
def test_gradients_that_are_not_finite_are_refused(kind: type) -> None:
    gramian = torch.eye(3, dtype=torch.float64)
    for value in (float("nan"), float("inf")):
        gramian[1, 1] = value
        with pytest.raises(InputError, match=r"tasks \[1\] are not finite"):
            make(kind, 3).weights(gramian)
    with pytest.raises(InputError, match=r"shape \[2, 3\]; expected \[T, T\]"):
        make(kind, 3).weights(torch.zeros(2, 3))


@pytest.mark.parametrize("kind", names([*GRAMIAN, *MATRIX]))
def test_the_order_of_the_tasks_does_not_matter(kind: type) -> None:
    draw = torch.Generator().manual_seed(3)
    order = torch.tensor([2, 0, 3, 1])
    if kind.__name__ in RANDOM:
        rows = torch.tensor([[1.0, 0.0, 0.2], [-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [0.5, -0.5, -1.0]])
        one = torch.stack([direct(make(kind, 4, 3, seed), rows.double()) for seed in range(600)])
        other = torch.stack([direct(make(kind, 4, 3, seed), rows[order].double()) for seed in range(600)])
        error = (one.var(0) / 600 + other.var(0) / 600).sqrt() + 1e-9
        assert ((one.mean(0) - other.mean(0)).abs() / error).max() < 5, "in distribution"
        return
    for _ in range(10):
        rows = torch.randn(4, 9, dtype=torch.float64, generator=draw)
        losses = torch.rand(4, dtype=torch.float64, generator=draw) + 0.1
        one, other = make(kind), make(kind)
        for _ in range(12):
            expected = direct(one, rows, losses=losses)
            found = direct(other, rows[order], losses=losses[order], task_ids=order)
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


SCALE_POWER = {  # f(c G) = c ** power f(G)
    "AlignedMTL": 1,
    "CAGrad": 1,
    "ConFIG": 1,
    "ConicGrad": 1,
    "DualProj": 1,
    "FairGrad": 0,
    "GradDrop": 1,
    "GradNorm": 1,
    "GradVac": 1,
    "IMTLG": 1,
    "MGDA": 1,
    "MoDo": 1,
    "NashMTL": 0,
    "PCGrad": 1,
    "SDMGrad": 1,
    "UPGrad": 1,
    "WeightedPCGrad": 1,
}


@pytest.mark.parametrize("name", SCALE_POWER)
def test_the_scale_of_all_gradients(name: str) -> None:
    draw = torch.Generator().manual_seed(4)
    for rank in (2, 5, 8):
        rows = torch.randn(5, rank, dtype=torch.float64, generator=draw)
        for scale in (1e-6, 1e3):
            kind = getattr(balancers, name)
            expected, found = direct(make(kind, 5), rows), direct(make(kind, 5), scale * rows)
            torch.testing.assert_close(
                found, scale ** SCALE_POWER[name] * expected, rtol=1e-5, atol=1e-7 * scale ** SCALE_POWER[name]
            )


@pytest.mark.parametrize("name", ["NashMTL", "IMTLG", "ConFIG", "CDTT"])
def test_directions_that_do_not_depend_on_the_scale_of_single_tasks(name: str) -> None:
    draw = torch.Generator().manual_seed(5)
    kind = getattr(balancers, name)
    for _ in range(10):
        rows = torch.randn(4, 9, dtype=torch.float64, generator=draw)
        scales = 10 ** (4 * torch.rand(4, 1, dtype=torch.float64, generator=draw) - 2)
        one, other = direct(make(kind), rows), direct(make(kind), scales * rows)
        assert torch.cosine_similarity(one, other, 0) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("name", ["MGDA", "UPGrad", "DualProj", "NashMTL", "FairGrad", "ConFIG", "CDTT"])
def test_no_task_is_hurt(name: str) -> None:
    draw = torch.Generator().manual_seed(6)
    kind = getattr(balancers, name)
    for tasks, size in ((2, 9), (5, 9), (8, 12), (50, 16), (10, 4)):
        if tasks > size and name in ("NashMTL", "FairGrad", "ConFIG"):
            continue  # more tasks than dimensions: no direction may help all, and these know no way to stand still
        for _ in range(10):
            rows = torch.randn(tasks, size, dtype=torch.float64, generator=draw)
            found = direct(make(kind, tasks), rows)
            assert (rows @ found).min() >= -1e-9 * rows.norm() * max(float(found.norm()), float(rows.norm()))


@pytest.mark.parametrize("name", ["MGDA", "UPGrad", "DualProj", "CAGrad", "NashMTL", "PCGrad"])
def test_single_precision_gradients_that_hardly_differ(name: str) -> None:
    """Two opposed camps behind a common part: what tells the tasks apart is small beside what they share."""
    draw = torch.Generator().manual_seed(11)
    common, apart = torch.randn(300_000, generator=draw), torch.randn(300_000, generator=draw)
    rows = torch.stack(
        [common + 0.01 * sign * apart + 0.002 * torch.randn(300_000, generator=draw) for sign in (1, 1, -1, -1)]
    )
    kind = getattr(balancers, name)
    found = make(kind).weights(gramian(rows))
    exact = make(kind).weights(rows.double() @ rows.double().T)
    direction, expected = found @ rows.double(), exact @ rows.double()
    assert (direction - expected).norm() < 1e-6 * expected.norm()


@pytest.mark.parametrize(
    ("name", "total"),
    [("PCGrad", 1.0), ("WeightedPCGrad", 1.0), ("GradVac", 1.0), ("UPGrad", 0.25), ("DualProj", 0.25)],
)
def test_without_conflict_nothing_is_projected(name: str, total: float) -> None:
    rows = torch.rand(4, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    found = direct(make(getattr(balancers, name)), rows)
    if name != "GradVac":  # which also turns gradients that are at less than their target
        torch.testing.assert_close(found, total * rows.sum(0), rtol=1e-9, atol=1e-12)
    assert (rows @ found > 0).all()


SINGLE = {"NashMTL": lambda g: g / g.norm(), "FairGrad": lambda g: g / g.norm(), "CAGrad": lambda g: 1.5 * g}


@pytest.mark.parametrize("kind", names([kind for kind in GRAMIAN]))
def test_a_single_task(kind: type) -> None:
    rows = torch.randn(1, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    expected = SINGLE.get(kind.__name__, lambda g: g)(rows[0])
    torch.testing.assert_close(direct(make(kind, 1), rows), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", names([*GRAMIAN, *MATRIX]))
def test_usable_without_training(kind: type) -> None:
    rows = torch.randn(3, 9, generator=torch.Generator().manual_seed(9))
    assert torch.isfinite(direct(SPECIAL.get(kind, lambda _: kind())(3), rows.double())).all()


@pytest.mark.parametrize("kind", names(LOSS))
def test_loss_weights_are_finite_and_not_negative(kind: type) -> None:
    balancer = make(kind)
    for losses in ([1.0, 2.0, 3.0, 4.0], [1e-9, 1.0, 1e3, 0.0]):
        for _ in range(5):
            weights = balancer.weights(torch.tensor(losses, dtype=torch.float64), torch.arange(4))
            assert weights.shape == (4,) and torch.isfinite(weights).all() and (weights >= 0).all()


@pytest.mark.parametrize("kind", names([*GRAMIAN, *MATRIX, *LOSS]))
def test_losses_of_nearly_zero_and_below(kind: type) -> None:
    """A task that is solved does not drown the others; losses below zero are refused, or do not matter."""
    rows = torch.randn(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(12))

    def last(*values: float) -> Tensor:
        balancer, losses = make(kind, 3), torch.tensor(values, dtype=torch.float64)
        for _ in range(13):
            if isinstance(balancer, LossWeighting):
                found = balancer.weights(losses, torch.arange(3)).detach() @ rows
            else:
                found = direct(balancer, rows, losses=losses)
        return found

    usual = last(0.5, 1.0, 2.0).norm()
    for least in (1e-9, 1e-30, 0.0):
        assert last(least, 1.0, 2.0).norm() < 2e4 * usual, "no more than the least share of the mean makes it"
    assert last(0.0, 0.0, 0.0).isfinite().all()
    try:
        found = last(-0.5, 1.0, 2.0)
    except InputError as error:
        assert "relative size of losses; found a loss of -0.5" in str(error)
    else:
        torch.testing.assert_close(found, last(0.5, 1.0, 2.0))


@pytest.mark.parametrize("kind", names([*GRAMIAN, *MATRIX]))
def test_batches_of_some_tasks_touch_only_their_state(kind: type) -> None:
    balancer = make(kind, 6)
    rows = torch.randn(3, 9, generator=torch.Generator().manual_seed(10)).double()
    before = {name: value.clone() for name, value in balancer.named_buffers() if value.ndim and len(value) == 6}
    for _ in range(12):
        direct(balancer, rows, losses=torch.tensor([1.0, 0.5, 2.0]), task_ids=torch.tensor([5, 0, 3]))
    for name, old in before.items():
        new = dict(balancer.named_buffers())[name].to(old.dtype)
        torch.testing.assert_close(new[[1, 2, 4]], old[[1, 2, 4]], equal_nan=True)


@pytest.mark.parametrize("kind", names(ALL))
def test_stop_and_resume_equals_an_uninterrupted_run(kind: type, train_options: dict, tmp_path: Path) -> None:
    whole = train(**run_options(kind, train_options))
    stopped = tmp_path / "stopped"
    shutil.copytree(whole.folder, stopped)
    Run(stopped).checkpoints().file(20).unlink()
    train(resume=stopped)

    def entries(folder: Path) -> list[dict]:
        return [{k: v for k, v in row.items() if k not in TIMING_ENTRIES} for row in read_log(folder)]

    one, other = Run(whole.folder).checkpoints().load(), Run(stopped).checkpoints().load()
    for part in ("agent", "balancers", "optimizers"):
        assert_same(one[part], other[part])
    assert entries(whole.folder) == entries(stopped)


@pytest.mark.parametrize("kind", names(ALL))
def test_training_with_masks_of_single_tasks_and_at_once(kind: type, train_options: dict) -> None:
    options = run_options(kind, train_options)
    options |= {"sharing": "RandomMasks", "execution": "vmap", "agent.output_heads": "linear", "dtype": "float64"}
    run = train(**options)
    whole = run.checkpoints().load()
    run.checkpoints().file(20).unlink()
    train(resume=run.folder)
    for name, value in whole["agent"].items():
        assert value.isfinite().all() and torch.equal(value, run.checkpoints().load()["agent"][name])


FIXED = {"Equal", "FixedWeights"}
"""Methods whose weights are the same for ever."""
UNWEIGHTED = {"BayesAgg", "ConnectionStrength", "GradDrop", "Layerwise", "SelectiveTaskGroups", "TorchJD"}
"""Methods whose moves are not weighted sums of the tasks' gradients (BayesAgg: after its warm-up)."""


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of three tasks: actions that follow from what is seen, such with some noise, and nothing but noise."""
    suite, path = PointReach(["towards-0", "towards-2", "away-0"]), tmp_path_factory.mktemp("data") / "unequal"
    draw, steps, episodes = np.random.default_rng(0), 30, []
    for task, noise in zip(suite.task_names, (0.0, 0.1, 0.9), strict=True):
        for _ in range(8):
            seen = draw.uniform(-1, 1, (steps + 1, 4)).astype(np.float32)
            actions = (0.1 * seen[:-1, :2] + noise * draw.uniform(-1, 1, (steps, 2))).astype(np.float32)
            never, last = np.zeros(steps, bool), np.arange(steps) == steps - 1
            episodes.append(Episode(task, seen, actions, np.ones(steps, np.float32), never, never, last))
    source = {"recipe": "own"}
    StoreWriter(path, suite.describe(), suite.task_names, (4, 2), 50, suite.versions(), source).write(episodes)
    return path


@pytest.mark.parametrize("kind", names([kind for kind in ALL if kind.__name__ not in UNWEIGHTED]))
def test_weights_move_within_a_run_if_losses_are_unequal(kind: type, unequal: Path, train_options: dict) -> None:
    """With the constructor's own defaults: a method whose weights stay equal is `Equal` under another name."""
    needed = ("balancer.values", "balancer.name", "balancer.inner")
    options = {key: value for key, value in run_options(kind, {}).items() if key in needed}
    schedule = {"steps": 100, "log_every": 20, "evaluate_every": 0, "save_every": 0, "monitor_every": 0}
    run = train(**train_options | {"data": str(unequal), "balancer": kind.__name__, "schedule": schedule} | options)
    entries = [row for row in read_log(run.folder) if row["kind"] == "training"]
    weights = np.array([[row[f"policy/weight/{task}"] for task in run.spec.task_names] for row in entries])
    if kind.__name__ in FIXED:
        assert (weights == weights[0]).all()
    else:
        assert np.abs(weights[-1]).max() > 1.02 * np.abs(weights[-1]).min()
        assert not np.allclose(weights[-1], weights[0], rtol=0.02), "they follow training"


def assert_same(one: object, other: object) -> None:
    if isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    elif isinstance(one, Tensor) and isinstance(other, Tensor):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
    else:
        assert one == other


@pytest.mark.parametrize("kind", names(ALL))
def test_training_beats_the_initial_policy(kind: type, train_options: dict, baseline: Callable[[dict], Run]) -> None:
    options = run_options(kind, train_options)
    schedule = {"steps": 200, "evaluate_every": 0, "save_every": 0, "log_every": 20, "monitor_every": 0}
    options |= {"schedule": schedule, "seed": 1}
    options |= {"optimizer": {"lr": 0.01, "warmup": 10}, "tasks_per_batch": None}
    run = train(**options)
    losses = [row["loss"] for row in read_log(run.folder) if row["kind"] == "training"]
    assert losses[-1] < 0.7 * losses[0]
    trained = run.evaluate(Protocol(goals=6), workers=0, quiet=True).mean_success
    schedule = {"steps": 1, "evaluate_every": 0, "monitor_every": 0}
    plain = {name: value for name, value in options.items() if not name.startswith("balancer")}
    untrained = baseline(plain | {"optimizer": {"lr": 1e-12}, "schedule": schedule})
    assert trained > untrained.evaluate(Protocol(goals=6), workers=0, quiet=True).mean_success
    assert not np.isnan(losses).any()
