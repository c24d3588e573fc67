"""Frozen parameters (`requires_grad=False`) stay where they are, whatever trains the rest, in every execution."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from families import AGENT_VARIANTS, BALANCERS, run_options, sampler_of
from pairwise import cover
from torch import Tensor

from mtorl import InputError
from mtorl.agents import Agent, BehaviorCloning
from mtorl.agents.heads import SmallTowers, VariationalHeads
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext
from mtorl.runs.configuration import Configuration, command_line
from mtorl.runs.experiment import Experiment
from mtorl.trainers.balancers import BayesAgg, ConnectionStrength
from mtorl.trainers.checkpoint import CheckpointFolder
from mtorl.trainers.executions import Execution, PhaseFunctions
from mtorl.trainers.groupers import AgreementKMeans, CosineAffinity, GradTAG
from mtorl.trainers.logs import NoLog
from mtorl.trainers.offline import OfflineTrainer
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.sharing import HarmonyMasks, RandomMasks, Shared, Sharing

EXECUTIONS: tuple[Execution, ...] = ("joint", "loop", "vmap")


def fine_tuned(spec: DataSpec, **options: Any) -> Agent:
    """Its first layer is frozen, as users do it: when everything else of the agent is there already."""
    agent = BehaviorCloning(spec, **options)
    agent.backbone.layers[0].requires_grad_(False)  # type: ignore[operator, union-attr, index]
    return agent


def probed(spec: DataSpec, **options: Any) -> Agent:
    """Only the heads of single tasks are trained."""
    agent = BehaviorCloning(spec, **{"output_heads": "per_task", **options})
    agent.backbone.requires_grad_(False)
    agent.gains.requires_grad_(False)
    return agent


@cache
def experiment_of(kind: type, data: str) -> Experiment:
    """A short run with a balancer, on two of the tasks at a time; not yet of an agent."""
    options = run_options(kind, {"data": data, "out": "nowhere", "windows": 4, "quiet": True})
    options = {name: value for name, value in options.items() if not name.startswith("agent.")}
    options["schedule"] = {"steps": 20, "log_every": 0, "evaluate_every": 0, "save_every": 0, "monitor_every": 3}
    options["optimizer"] = {"lr": 0.01, "warmup": 0, "weight_decay": 0.1}
    return Configuration.parse(command_line((), options)).experiment()


def trained(
    build: Callable[..., Agent],
    balancer: type,
    sharing: Sharing,
    execution: Execution,
    store: EpisodeStore,
    spec: DataSpec,
) -> tuple[OfflineTrainer, dict[str, Tensor]]:
    """A trainer after ten steps, and the weights that it began with."""
    own = {name.removeprefix("agent."): value for name, value in run_options(balancer, {}).items() if "agent." in name}
    experiment = replace(
        experiment_of(balancer, str(store.path)),
        agent=lambda spec: build(spec, hidden=(12, 12), **own),
        sharing=sharing,
        execution=execution,
    )
    trainer = experiment.build_trainer([store], spec, NoLog(), CheckpointFolder(Path("nowhere")), never, {})
    before = {name: value.clone() for name, value in trainer.agent.state_dict().items()}
    for _ in range(10):
        trainer.advance()
    return trainer, before


def never(policy: TaskPolicy) -> Any:
    raise AssertionError("nothing is evaluated here")


def check(trainer: OfflineTrainer, before: dict[str, Tensor]) -> None:
    frozen = 0
    for name, value in trainer.agent.named_parameters():
        assert torch.equal(value, before[name]) != value.requires_grad, name
        frozen += not value.requires_grad
    assert frozen


SHARING = {"Shared": Shared(), "HarmonyMasks": HarmonyMasks(interval=4)}
HEADS = (None, VariationalHeads, SmallTowers)
RUNS = cover(
    [
        {"kind": it, "execution": e, "sharing": s, "head": h}
        for it in BALANCERS
        for e in EXECUTIONS
        for s in SHARING
        for h in (HEADS if it is not BayesAgg else HEADS[:1])  # it needs heads that are linear
    ]
)
"""Every balancer in every execution, with every way of sharing, and with every kind of head."""


@pytest.mark.training
@pytest.mark.parametrize(
    ("kind", "execution", "sharing", "head"),
    [pytest.param(*row.values(), id="-".join(getattr(it, "__name__", str(it)) for it in row.values())) for row in RUNS],
)
def test_frozen_parameters_stay_and_the_rest_moves(
    kind: type, execution: Execution, sharing: str, head: type | None, store: EpisodeStore, spec: DataSpec
) -> None:
    build = partial(fine_tuned, head=head) if head else fine_tuned
    check(*trained(build, kind, SHARING[sharing], execution, store, spec))


@pytest.mark.training
@pytest.mark.parametrize("execution", EXECUTIONS)
@pytest.mark.parametrize("kind", BALANCERS, ids=lambda kind: kind.__name__)
def test_heads_alone_can_be_trained(kind: type, execution: Execution, store: EpisodeStore, spec: DataSpec) -> None:
    """Nothing is shared then: heads descend their own tasks' losses, and there is no direction to agree on."""
    if kind is ConnectionStrength:
        with pytest.raises(InputError, match="finds no connection of single tasks to shared layers"):
            trained(probed, kind, Shared(), execution, store, spec)
        return
    check(*trained(probed, kind, Shared(), execution, store, spec))


@pytest.fixture(params=AGENT_VARIANTS)
def agent(request: pytest.FixtureRequest, spec: DataSpec) -> Agent:
    """Every third of its parameters is frozen: shared ones and those of single tasks."""
    kind, options = request.param
    torch.manual_seed(0)
    found: Agent = kind(spec, **options).double().eval()
    for value in [it for it in found.parameters() if it.requires_grad][::3]:
        value.requires_grad_(False)
    return found


@pytest.mark.parametrize("kind", [Shared, RandomMasks])
def test_executions_agree_where_some_parameters_are_frozen(
    agent: Agent, kind: type, store: EpisodeStore, spec: DataSpec, even_noise: None
) -> None:
    batch = sampler_of(agent, store, spec).draw().to("cpu", torch.float64).select([2, 0])
    parameters = dict(agent.named_parameters())
    for number, phase in enumerate(agent.phases):
        sharing = kind()
        sharing.init(phase.space, 3, torch.Generator().manual_seed(0))
        found = []
        for execution in EXECUTIONS:
            functions = PhaseFunctions(agent, number, execution)
            assert all(parameters[name].requires_grad for name in (*functions.space.names, *functions.private))
            gradients, private = functions.gradients(batch, sharing)
            assert gradients.pulled_back.shape == (2, len(functions.space)) and gradients.pulled_back.any()
            found.append({"losses": gradients.losses, "rows": gradients.pulled_back.clone(), **private})
        for other in found[1:]:
            assert other.keys() == found[0].keys()
            for name, value in found[0].items():
                torch.testing.assert_close(other[name], value, rtol=0, atol=1e-9 * max(float(value.abs().max()), 1e-3))


def test_masks_leave_frozen_matrices_whole(spec: DataSpec) -> None:
    agent, masks = fine_tuned(spec, hidden=(12, 12)), RandomMasks(sparsity=0.5)
    masks.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
    assert set(masks.places) == {"backbone.layers.1.weight"}
    policy = TaskPolicy(agent, {"policy": masks})
    policy.reset(RolloutContext(torch.tensor([1]).numpy(), torch.zeros(1, dtype=torch.long).numpy()))
    first, second = policy.agent.backbone.layers  # type: ignore[union-attr, misc]
    assert first.weight.all() and not second.weight.all()
    with pytest.raises(InputError, match="not all of them frozen"):
        RandomMasks().init(probed(spec, hidden=(12,)).phases[0].space, 3, torch.Generator())


@pytest.mark.parametrize("kind", [AgreementKMeans, CosineAffinity, GradTAG])
def test_nothing_shared_is_no_ground_to_group_tasks(kind: type, store: EpisodeStore, spec: DataSpec) -> None:
    agent = probed(spec, hidden=(12,))
    with pytest.raises(InputError, match="trains nothing that tasks share"):
        kind().fit(PhaseFunctions(agent), Shared(), sampler_of(agent, store, spec), 2)


def test_a_policy_knows_what_was_trained(spec: DataSpec) -> None:
    """Nothing of a policy's copy is trained: what is shared is what was before."""
    for agent in (fine_tuned(spec, hidden=(12, 12)), BehaviorCloning(spec, hidden=(12, 12))):
        names = TaskPolicy(agent, {"policy": Shared()}).agent.phases[0].space.names
        assert names == agent.phases[0].space.names and names


def test_what_is_frozen_is_read_when_the_space_is_first_used(spec: DataSpec) -> None:
    agent = BehaviorCloning(spec, hidden=(12, 12))
    agent.requires_grad_(False)
    agent.head.requires_grad_(True)
    assert agent.phases[0].space.names == ("head.weight", "head.bias")


def test_a_phase_that_is_frozen_as_a_whole_is_refused(spec: DataSpec) -> None:
    with pytest.raises(InputError, match="phase policy has nothing to train: all of its parameters are frozen"):
        PhaseFunctions(BehaviorCloning(spec, hidden=(12,)).requires_grad_(False))
