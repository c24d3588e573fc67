"""What every way of sharing parameters must do."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import concrete, kept_by, sampler_of
from pairwise import cover
from safetensors.torch import save_file
from torch import Tensor

from mtorl.agents import Agent, BehaviorCloning, DecisionTransformer
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.protocol import Protocol
from mtorl.runs.training import train
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.logs import read_log
from mtorl.trainers.offline import TIMING_ENTRIES
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.sharing import (
    FrozenMasks,
    GroupMasks,
    HarmonyMasksReleased,
    ParetoManifold,
    Sharing,
    SoftMasks,
)
from mtorl.trainers.sharing.masks import MovingMasks, TaskMasks
from mtorl.trainers.update import MultiTaskUpdate

ALL = sorted(
    {kind for kind in concrete(Sharing) if not inspect.isabstract(kind) and kind.__module__.startswith("mtorl.")}
    - {TaskMasks},
    key=lambda kind: kind.__name__,
)
MASKS = [kind for kind in ALL if issubclass(kind, TaskMasks)]
MOVING = [kind for kind in ALL if issubclass(kind, MovingMasks | SoftMasks)]
AGENTS: list[tuple[type, dict]] = [
    (BehaviorCloning, {"hidden": (24, 24), "output_heads": "per_task"}),
    (DecisionTransformer, {"width": 16, "layers": 2, "attention_heads": 2, "context": 6, "dropout": 0.0}),
]


def names(kinds: list[type]) -> list:
    return [pytest.param(kind, id=kind.__name__) for kind in kinds]


def agent_and_batch(position: int, store: EpisodeStore, spec: DataSpec) -> tuple[Agent, TaskBatch]:
    kind, options = AGENTS[position]
    torch.manual_seed(0)
    agent = kind(spec, **options).to(torch.float64)
    return agent, sampler_of(agent, store, spec).draw().to("cpu", torch.float64)


def settled(kind: type, agent: Agent, batch: TaskBatch, folder: Path) -> Sharing:
    """A member that has been updated a few times, if it moves."""
    member = kind(**files(kind, folder, agent))
    member.task_names = agent.spec.task_names
    member.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
    functions = PhaseFunctions(agent)
    for progress in (0.3, 0.5, 0.7) if kind in MOVING else ():
        numbers = member.update(
            functions.space.select(agent), functions.dense_gradients([batch, batch], member), progress
        )
        assert numbers["changed" if kind is SoftMasks else "swapped"] > 0
    draw = torch.Generator().manual_seed(1)
    for value in member.parameters():  # its own ones differ
        value.data += 0.1 * torch.randn(value.shape, generator=draw, dtype=value.dtype)
    assert not [name for name, value in vars(member).items() if isinstance(value, Tensor)], "no gradients are kept"
    return member


def files(kind: type, folder: Path, agent: Agent) -> dict[str, str]:
    """What the members that read files read: two groups, masks."""
    names = agent.spec.task_names
    if kind is GroupMasks:
        Grouping(names, (0, 1, 0), ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0)), 1.0, "").save(folder / "g.json")
        return {"grouping": str(folder / "g.json")}
    if kind is FrozenMasks:
        draw, space = torch.Generator().manual_seed(5), agent.phases[0].space
        matrices = [it for it in zip(space.names, space.shapes, space.maskable, strict=True) if it[2]]
        values = {name: torch.rand(3, *shape, generator=draw) < 0.6 for name, shape, _ in matrices}
        save_file(values, folder / "m.safetensors", {"tasks": json.dumps(names)})
        return {"file": str(folder / "m.safetensors")}
    return {}


@pytest.mark.parametrize("kind", names(ALL))
@pytest.mark.parametrize("position", [0, 1], ids=["mlp", "transformer"])
def test_gradients_are_those_of_the_shared_parameters(
    kind: type, position: int, store: EpisodeStore, spec: DataSpec, tmp_path: Path
) -> None:
    """Differentiated through `effective`, and pulled back; also those of its own ones."""
    agent, batch = agent_and_batch(position, store, spec)
    member = settled(kind, agent, batch, tmp_path)
    functions = PhaseFunctions(agent)
    gradients, private = functions.gradients(batch, member)
    shared, losses = list(functions.space.select(agent).values()), functions.losses(batch, member).values
    own = list(member.parameters())
    wanted = [*functions.private.values(), *own, *shared]
    found = torch.autograd.grad(losses.sum(), wanted, retain_graph=True, materialize_grads=True)
    for value, expected in zip(private.values(), found[: len(private)], strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)
    assert len(wanted) == len(private) + len(shared)
    for row, loss in zip(gradients.pulled_back, losses, strict=True):
        found = torch.autograd.grad(loss, shared, retain_graph=True, materialize_grads=True)
        torch.testing.assert_close(row, functions.space.flatten(list(found)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", names(ALL))
def test_executions_agree_after_changes(kind: type, store: EpisodeStore, spec: DataSpec, tmp_path: Path) -> None:
    agent, batch = agent_and_batch(1, store, spec)
    member = settled(kind, agent, batch, tmp_path)
    batch = batch.select([2, 0])
    expected = PhaseFunctions(agent, 0, "joint").gradients(batch, member)
    for execution in ("loop", "vmap"):
        found = PhaseFunctions(agent, 0, execution).gradients(batch, member)  # type: ignore[arg-type]
        torch.testing.assert_close(found[0].pulled_back, expected[0].pulled_back, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found[0].losses, expected[0].losses, rtol=1e-12, atol=1e-12)
        assert found[1].keys() == expected[1].keys()
        for name, value in expected[1].items():
            torch.testing.assert_close(found[1][name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", names(MASKS))
def test_masked_weights_have_dense_gradients_and_no_others(
    kind: type, store: EpisodeStore, spec: DataSpec, tmp_path: Path
) -> None:
    agent, batch = agent_and_batch(0, store, spec)
    member = settled(kind, agent, batch, tmp_path)
    functions = PhaseFunctions(agent)
    dense = functions.dense_gradients([batch], member).dense.clone()
    rows = functions.gradients(batch, member)[0].pulled_back
    kept = torch.stack([kept_by(member, functions.space, task) for task in range(3)])  # type: ignore[arg-type]
    assert not rows[~kept].any() and dense[~kept].any()
    assert torch.equal(rows[kept], dense[kept])


@pytest.mark.parametrize("kind", names(MASKS))
def test_what_no_task_of_a_batch_uses_stays_bit_for_bit(
    kind: type, store: EpisodeStore, spec: DataSpec, tmp_path: Path
) -> None:
    """Under momentum and weight decay, and with its moments."""
    agent, batch = agent_and_batch(0, store, spec)
    member = settled(kind, agent, batch, tmp_path)
    functions = PhaseFunctions(agent)
    settings = OptimizerSettings(lr=0.1, weight_decay=0.1, warmup=0)
    optimizer = PhaseOptimizer(settings, agent, [], agent.task_rows(), 10)

    def step(tasks: list[int], index: int) -> None:
        one = MultiTaskUpdate(functions, optimizer, batch.select(tasks), member, index, 10, seed=0)
        one.descend(one.gradients().pulled_back.sum(0))

    def flat(values: dict[str, Tensor]) -> Tensor:
        return functions.space.flatten({name: value.detach().clone() for name, value in values.items()})

    def moments() -> list[Tensor]:
        states = [optimizer._adam.state[parameter] for parameter in functions.space.select(agent).values()]
        return [functions.space.flatten([it[name] for it in states]).clone() for name in ("exp_avg", "exp_avg_sq")]

    step([0, 1, 2], 0)
    before, momenta = flat(functions.space.select(agent)), moments()
    step([1], 1)
    off = ~kept_by(member, functions.space, 1)  # type: ignore[arg-type]
    after = flat(functions.space.select(agent))
    assert off.any() and torch.equal(before[off], after[off])
    assert (before[~off] != after[~off]).double().mean() > 0.5
    for old, new in zip(momenta, moments(), strict=True):
        assert old[off].any() and torch.equal(old[off], new[off]) and not torch.equal(old, new)


def assert_same(one: Any, other: Any) -> None:
    """Bit for bit, whatever it holds."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    else:
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other


RUNS = cover(
    [
        {"kind": it, "balancer": b, "tasks": n}
        for it in ALL
        for b in (("Equal", "DWA") if it is ParetoManifold else ("Equal", "PCGrad"))
        for n in (2, 3)
    ]
)
"""Every way of sharing with every kind of balancer that it goes with, and with batches of some tasks and of all."""


@pytest.mark.parametrize(
    ("kind", "balancer", "tasks_per_batch"),
    [pytest.param(*row.values(), id=f"{row['kind'].__name__}-{row['balancer']}-{row['tasks']}") for row in RUNS],
)
def test_a_run_resumes_bit_for_bit(
    kind: type, balancer: str, tasks_per_batch: int, train_options: dict, spec: DataSpec, tmp_path: Path
) -> None:
    options = {**train_options, "sharing": kind.__name__, "balancer": balancer, "tasks_per_batch": tasks_per_batch}
    agent = BehaviorCloning(spec, hidden=(16, 16))
    read = files(kind, tmp_path, agent)
    options |= {f"sharing.{name}": value for name, value in read.items()}
    if kind in MOVING:
        options |= {"sharing.interval": 4}
    if kind is HarmonyMasksReleased:
        options |= {"sharing.swap_count": 5, "sharing.interval": 12}  # of single tasks
    run = train(**options)
    for value in read.values():
        Path(value).unlink()  # from now on the run holds all it needs

    def entries() -> list[dict]:
        return [{k: v for k, v in row.items() if k not in TIMING_ENTRIES} for row in read_log(run.folder)]

    whole, log = run.checkpoints().load(), entries()
    run.checkpoints().file(30).unlink()
    train(resume=run.folder)
    again = run.checkpoints().load()
    for name, value in whole["agent"].items():
        assert torch.equal(value, again["agent"][name])
    assert_same(whole["sharing"], again["sharing"])
    assert kind is not GroupMasks or whole["sharing"]["policy"]["_extra_state"]["gate"]
    assert entries() == log
    moves = [row for row in log if row["kind"] == "sharing"]
    assert len(moves) == (7 if kind in MOVING else 0)
    assert not moves or moves[-1]["changed"] > 0
    assert 0 <= run.evaluate(Protocol(goals=1), workers=0, quiet=True).mean_success <= 1
