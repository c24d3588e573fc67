"""With one task every method is the single-task method that it is made of."""

import json
from collections.abc import Callable
from functools import partial
from inspect import isabstract
from pathlib import Path

import pytest
import torch
from families import BALANCERS, SMALL_AGENTS, concrete, run_options
from safetensors.torch import save_file
from torch import Tensor

from mtorl.agents import M3DT, Agent
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.spec import describe_stores
from mtorl.datasets.store import EpisodeStore
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.seeding import isolated, numpy_stream
from mtorl.trainers.sharing import FrozenMasks, GroupMasks, SoftMasks
from mtorl.trainers.sharing.weight_masks import WeightMasks

TASK = "towards-2"
RESCALING = {"BayesAgg", "CAGrad", "DBMTL", "FairGrad", "IMTLL", "MoCo", "NashMTL", "Prescaled", "STCH", "Uncertainty"}
"""Balancers that change the size of a single task's step."""
MASKS = sorted({it for it in concrete(WeightMasks) if not isabstract(it)}, key=lambda it: it.__name__)


def learned(folder: Path) -> dict[str, Tensor]:
    return Run(folder).checkpoints().load()["agent"]


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("kind", SMALL_AGENTS, ids=lambda kind: kind.__name__)
def test_a_run_is_the_textbook_loop(kind: type, train_options: dict, store: EpisodeStore) -> None:
    """AdamW on the loss of every phase in turn, and nothing else."""
    small = SMALL_AGENTS[kind] | ({"groups": [[TASK]]} if kind is M3DT else {})
    plain = {
        name: {"class_path": it.func.__name__, "init_args": it.keywords} if isinstance(it, partial) else it
        for name, it in small.items()
    }
    options = {key: value for key, value in train_options.items() if key != "agent.hidden"}
    options |= {"agent": {"class_path": kind.__name__, "init_args": plain}, "tasks": [TASK], "dtype": "float64"}
    options |= {"schedule": {"steps": 6, "evaluate_every": 0}}
    options |= {"optimizer": {"lr": 0.01, "warmup": 0, "schedule": "constant", "clip": 0.5, "weight_decay": 0.1}}
    run = train(**options)
    spec = describe_stores([store], [TASK])
    with isolated(0, "init"):
        agent: Agent = kind(spec, **small)
    agent.remember([store])
    agent.double().train()
    sampler = TaskSampler(
        [store],
        [TASK],
        8,
        agent.window,
        numpy_stream(0, "data"),
        next_observations=agent.next_observations,
        prompts=agent.prompts,
    )
    optimizers = [torch.optim.AdamW(phase.module.parameters(), 0.01, weight_decay=0.1) for phase in agent.phases]
    for step in range(6):
        batch = sampler.draw().to("cpu", torch.float64)
        for number, (phase, optimizer) in enumerate(zip(agent.phases, optimizers, strict=True)):
            if step not in phase.span(6) or step % phase.every:
                continue
            optimizer.zero_grad()
            with isolated(0, "dropout", step - phase.span(6).start):
                agent(number, batch).values[0].backward()
            torch.nn.utils.clip_grad_norm_(phase.module.parameters(), 0.5)
            optimizer.step()
            phase.after_step()
    assert_same(learned(run.folder), agent.state_dict(), 1e-9)


def first_gradient(folder: Path) -> list[Tensor]:
    """Of the first step, up to a factor: Adam's first moment after it."""
    state = Run(folder).checkpoints().load()["optimizers"]["policy"]["adam"]["state"]
    return [state[key]["exp_avg"] for key in sorted(state)]


@pytest.mark.parametrize("kind", BALANCERS, ids=lambda kind: kind.__name__)
def test_a_balancer_has_nothing_to_balance(
    kind: type, train_options: dict, baseline: Callable[[dict], Run], tmp_path: Path
) -> None:
    """The direction is the loss's own; so is its size, unless another size is the method."""
    options = run_options(kind, train_options) | {"tasks": [TASK], "tasks_per_batch": 1, "dtype": "float64"}
    options |= {"optimizer": {"lr": 0.01, "warmup": 0, "clip": 0.0}, "agent.output_heads": "linear"}
    options |= {"balancer.values": [1.0]} if kind.__name__ == "FixedWeights" else {}
    common = {key: value for key, value in options.items() if not key.startswith("balancer")}
    for steps in (1, 20):
        schedule = {"steps": steps, "evaluate_every": 0, "save_every": 0}
        found = train(**options | {"out": str(tmp_path / f"found{steps}"), "schedule": schedule}).folder
        plain = baseline(common | {"schedule": schedule}).folder
        if steps == 1:
            for mine, expected in zip(first_gradient(found), first_gradient(plain), strict=False):
                torch.testing.assert_close(mine / mine.norm(), expected / expected.norm(), rtol=1e-9, atol=1e-12)
        else:
            one, other = learned(found), learned(plain)
            assert (kind.__name__ in RESCALING) != all(torch.allclose(one[it], other[it], rtol=1e-9) for it in other)


@pytest.mark.parametrize("kind", MASKS, ids=lambda kind: kind.__name__)
def test_masks_that_leave_nothing_out_are_no_masks(
    kind: type, train_options: dict, baseline: Callable[[dict], Run], tmp_path: Path
) -> None:
    options, more = train_options | {"tasks": [TASK]}, {"sharing.sparsity": 0.0}
    if kind is SoftMasks:  # a task alone conflicts with nobody
        more = {"sharing.interval": 4}
    plain = baseline(options)
    if kind is FrozenMasks:
        full = {name: torch.ones(1, *shape, dtype=torch.bool) for name, shape in matrices(plain).items()}
        save_file(full, tmp_path / "m.safetensors", {"tasks": json.dumps([TASK])})
        more = {"sharing.file": str(tmp_path / "m.safetensors")}
    if kind is GroupMasks:
        Grouping((TASK,), (0,), ((1.0,),), 1.0, "").save(tmp_path / "g.json")
        more |= {"sharing.grouping": str(tmp_path / "g.json")}
    masked = train(**options | {"out": str(tmp_path / "masked"), "sharing": kind.__name__, **more})
    assert (masked.sharing()["policy"].masks == 1).all()  # type: ignore[union-attr]
    assert_same(learned(plain.folder), learned(masked.folder), 0)


@pytest.mark.parametrize(
    "options",
    [
        {"sharing": "CrossLearning", "sharing.variant": "primal_dual", "sharing.project_every": 3},
        {"sharing": "CrossLearning", "sharing.variant": "projected", "sharing.epsilon": 0.0},
        {"sharing": "CrossLearning", "sharing.epsilon": 1e9, "balancer": "PCGrad"},
        {"sharing": "ParetoManifold"},
        {"sharing": "ParetoManifold", "sharing.rank": None, "sharing.tensors": "all"},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_one_task_has_nothing_to_be_apart_from(
    options: dict, train_options: dict, baseline: Callable[[dict], Run]
) -> None:
    common = train_options | {"tasks": [TASK], "dtype": "float64", "optimizer": {"lr": 0.01, "weight_decay": 0.1}}
    plain, found = baseline(common), train(**common | options)
    assert_same(learned(plain.folder), learned(found.folder), 1e-9)


def matrices(run: Run) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights that masks may switch off."""
    space = run.policy()[0].agent.phases[0].space
    return {name: shape for name, shape, on in zip(space.names, space.shapes, space.maskable, strict=True) if on}
