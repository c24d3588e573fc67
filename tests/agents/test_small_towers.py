"""Towers beside a head: they teach the features, and nothing else."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mtorl import InputError
from mtorl.agents import CQL, IQL, TD3BC, BehaviorCloning, SoftModular
from mtorl.agents.heads import GaussianHead, RegressionHead, SmallTowers, VariationalHeads
from mtorl.datasets.spec import DataSpec
from mtorl.envs.base import RolloutContext
from mtorl.envs.protocol import Protocol
from mtorl.reports.run_report import report
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.policy import TaskPolicy

MAINS = {
    "shared": None,
    "per_task": partial(RegressionHead, kind="per_task"),
    "linear": partial(RegressionHead, kind="linear"),
    "gaussian": GaussianHead,
    "variational": VariationalHeads,
}


def towers(main: str = "shared", **options: object) -> SmallTowers:
    torch.manual_seed(0)
    return SmallTowers(5, 2, 3, MAINS[main], **options).double().eval()  # type: ignore[arg-type]


def windows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(3, 4, 6, 5, generator=draw, dtype=torch.float64, requires_grad=True)
    targets = 2 * torch.rand(3, 4, 6, 2, generator=draw, dtype=torch.float64) - 1
    return features, targets, torch.rand(3, 4, 6, generator=draw) < 0.6, torch.arange(3)


@pytest.mark.parametrize("main", MAINS)
@pytest.mark.parametrize("tower", ["linear", "bottleneck"])
def test_the_loss_is_that_of_the_head_and_a_share_of_the_towers(main: str, tower: str) -> None:
    """Neither's parameters learn from the other's loss; features learn from the sum."""
    made, (features, targets, valid, ids) = towers(main, tower=tower, gamma=0.7), windows()
    assert made.towers is not None
    own = made.main.losses(features, targets, valid, ids)
    apart = (made.towers(features, ids) - targets).square().mean(-1)
    lesson = (apart * valid).sum((1, 2)) / valid.sum((1, 2))
    torch.testing.assert_close(made.losses(features, targets, valid, ids), own + 0.7 * lesson, rtol=1e-12, atol=0)
    mine, others = list(made.main.parameters()), list(made.towers.parameters())
    assert not any(
        it is not None for it in torch.autograd.grad(own.sum(), others, retain_graph=True, allow_unused=True)
    )
    assert not any(
        it is not None for it in torch.autograd.grad(lesson.sum(), mine, retain_graph=True, allow_unused=True)
    )
    first, second = (torch.autograd.grad(it.sum(), features, retain_graph=True)[0] for it in (own, lesson))
    (whole,) = torch.autograd.grad(made.losses(features, targets, valid, ids).sum(), features)
    torch.testing.assert_close(whole, first + 0.7 * second, rtol=1e-9, atol=1e-12)


def test_so_many_parameters() -> None:
    assert sum(it.numel() for it in SmallTowers(256, 4, 50).training_only()) == 51_400
    narrow = SmallTowers(256, 4, 50, tower="bottleneck", width=8)
    assert sum(it.numel() for it in narrow.training_only()) == 50 * (256 * 8 + 8 + 8 * 4 + 4)


@pytest.mark.parametrize("tasks", [["towards-2"], None])
def test_towers_that_count_nothing_change_nothing(tasks: list[str] | None, train_options: dict, tmp_path: Path) -> None:
    """Bit for bit, of one task and of several."""
    options = train_options | {"tasks": tasks, "optimizer.clip": 0.0}  # a norm of more parameters rounds differently
    plain = train(**options).checkpoints().load()["agent"]
    more = {"agent.head": "SmallTowers", "agent.head.gamma": 0.0, "out": str(tmp_path / "towers")}
    found = train(**options | more).checkpoints().load()["agent"]
    assert {name.replace("head.", "head.main.") for name in plain} < found.keys()
    for name, value in plain.items():
        assert torch.equal(value, found[name.replace("head.", "head.main.")])


def act(policy: TaskPolicy) -> np.ndarray:
    draw = np.random.default_rng(0)
    policy.reset(RolloutContext(np.array([1, 1]), np.arange(2)))
    return policy.act(draw.normal(size=(2, 4)).astype(np.float32), np.zeros(2, np.float32))


def test_a_checkpoint_without_towers_plays_the_same(train_options: dict) -> None:
    options = {"agent.head": "SmallTowers", "agent.head.main": "VariationalHeads", "balancer": "PCGrad"}
    run = train(**train_options, **options)
    policy, _ = run.policy()
    assert not policy.agent.training_only() and not [it for it in policy.agent.state_dict() if "towers" in it]
    before, folder = act(policy), run.checkpoints()
    state = folder.load()
    assert {name for name in state["agent"] if "towers" in name}
    state["agent"] = {name: value for name, value in state["agent"].items() if "towers" not in name}
    torch.save(state, folder.file(30))
    np.testing.assert_array_equal(act(Run(run.folder).policy()[0]), before)
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)
    page = report(run.folder).read_text()
    assert f"{3 * (16 * 2 + 2)} of them for training only" in page and "take from each other's heads" in page
    with pytest.raises(InputError, match="weights do not fit"):
        train(resume=run.folder)


def test_a_run_resumes_bit_for_bit(train_options: dict) -> None:
    run = train(**train_options, **{"agent.head": "SmallTowers", "tasks_per_batch": 2, "sharing": "RandomMasks"})
    whole = run.checkpoints().load()["agent"]
    run.checkpoints().file(30).unlink()
    train(resume=run.folder)
    again = run.checkpoints().load()["agent"]
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_what_contradicts_itself_is_refused(spec: DataSpec) -> None:
    with pytest.raises(InputError, match="head is named, and output_heads is 'per_task'"):
        BehaviorCloning(spec, output_heads="per_task", head=SmallTowers)
    for build in (partial(SoftModular, distribution="gaussian"), IQL, CQL):
        with pytest.raises(InputError, match="head is named, and distribution is 'gaussian'"):
            build(spec, head=SmallTowers)
    for head in (GaussianHead, MAINS["linear"], partial(SmallTowers, main=GaussianHead)):
        with pytest.raises(InputError, match="head is linear, or has a likelihood of its own"):
            TD3BC(spec, head=head)
    with pytest.raises(InputError, match="gamma is -1"):
        SmallTowers(5, 2, 3, gamma=-1.0)
    with pytest.raises(InputError, match="tower is 'deep'; expected one of linear, bottleneck"):
        SmallTowers(5, 2, 3, tower="deep")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [IQL, TD3BC])
def test_towers_teach_the_features_of_policies_with_critics(kind: type, spec: DataSpec) -> None:
    agent = kind(spec, head=SmallTowers, **({"distribution": "deterministic"} if kind is IQL else {}))
    actor = next(phase for phase in agent.phases if phase.name == "actor")
    names = {name for name in agent.training_only() if "target" not in name}
    assert names and not names & set(actor.space.names) and "head.main.weight" in actor.space.names
