"""All executions give the same losses and gradients, for every agent and way of sharing."""

import pytest
import torch
from families import AGENT_VARIANTS, SMALL_AGENTS, sampler_of

from mtorl.agents import Agent
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.phase_trainer import phase_functions
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import CrossLearning, ParetoManifold, RandomMasks, Shared, Sharing

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}


@pytest.fixture(params=AGENT_VARIANTS)
def agent(request: pytest.FixtureRequest, spec: DataSpec) -> Agent:
    kind, options = request.param
    with isolated(0, "init"):
        return kind(spec, **options).eval()


@pytest.fixture(params=[Shared, RandomMasks])
def sharing(request: pytest.FixtureRequest, agent: Agent) -> list[Sharing]:
    """One for each phase."""
    members = [request.param() for _ in agent.phases]
    for member, phase in zip(members, agent.phases, strict=True):
        member.init(phase.space, 3, torch.Generator().manual_seed(0))
    return members


def draw(agent: Agent, store: EpisodeStore, spec: DataSpec, dtype: torch.dtype) -> TaskBatch:
    agent.to(dtype)
    return sampler_of(agent, store, spec).draw().to("cpu", dtype)


def snapshot(
    agent: Agent, batch: TaskBatch, sharing: Sharing, phase: int, execution: str, chunk: int | None = None
) -> dict:
    functions = PhaseFunctions(agent, phase, execution, chunk)  # type: ignore[arg-type]
    dense = functions.dense_gradients([batch, batch], sharing).dense.clone()
    found, private = functions.gradients(batch, sharing)
    return {
        "losses": found.losses,
        "dense": dense,
        "pulled_back": found.pulled_back,
        "gramian": found.gramian,
        **private,
    }


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_executions_agree(
    agent: Agent,
    sharing: list[Sharing],
    store: EpisodeStore,
    spec: DataSpec,
    dtype: torch.dtype,
    even_noise: None,
) -> None:
    batch = draw(agent, store, spec, dtype).select([2, 0])
    for number, (phase, member) in enumerate(zip(agent.phases, sharing, strict=True)):
        expected = snapshot(agent, batch, member, number, "joint")
        assert expected["dense"].shape == (2, len(phase.space)) and expected["dense"].any(1).all()
        for execution, chunk in (("loop", None), ("vmap", None), ("vmap", 1)):
            found = snapshot(agent, batch, member, number, execution, chunk)
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                scale = float(value.abs().max())
                torch.testing.assert_close(found[name], value, rtol=0, atol=TOLERANCE[dtype] * max(scale, 1e-3))


@pytest.mark.parametrize("member", [CrossLearning, ParetoManifold], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("kind", SMALL_AGENTS, ids=lambda kind: kind.__name__)
def test_executions_agree_where_tasks_have_values_of_their_own(
    kind: type, member: type, store: EpisodeStore, spec: DataSpec, even_noise: None
) -> None:
    """Also of what tasks read of other phases, and of target networks."""
    with isolated(0, "init"):
        agent = kind(spec, **SMALL_AGENTS[kind]).eval()
    batch = draw(agent, store, spec, torch.float64).select([2, 0])
    members = {phase.name: member() for phase in agent.phases}
    noise = torch.Generator().manual_seed(1)
    for phase in agent.phases:
        members[phase.name].init(phase.space, 3, torch.Generator().manual_seed(0))
        for value in members[phase.name].parameters():
            value.data += 0.1 * torch.randn(value.shape, generator=noise, dtype=value.dtype)
    for phase in agent.phases:
        mine, found = members[phase.name], []
        for execution in ("joint", "loop", "vmap"):
            functions = phase_functions(agent, phase, members, execution)  # type: ignore[arg-type]
            gradients, private = functions.gradients(batch, mine)
            found.append({"losses": gradients.losses, "rows": gradients.pulled_back.clone(), **private})
        losses = functions.losses(batch, mine).values
        torch.testing.assert_close(losses.detach(), found[0]["losses"], rtol=1e-9, atol=1e-12)
        assert any(value.any() for name, value in found[0].items() if name.startswith("sharing."))
        for name, value in found[0].items():
            for other in found[1:]:
                scale = max(float(value.detach().abs().max()), 1e-3)
                torch.testing.assert_close(other[name], value, rtol=0, atol=1e-9 * scale)


def test_gradients_sum_to_that_of_the_summed_losses(
    agent: Agent, sharing: list[Sharing], store: EpisodeStore, spec: DataSpec, even_noise: None
) -> None:
    batch = draw(agent, store, spec, torch.float64)
    for number, member in enumerate(sharing):
        functions = PhaseFunctions(agent, number)
        gradients, private = functions.gradients(batch, member)
        agent.zero_grad()
        losses = functions.losses(batch, member).values
        torch.testing.assert_close(gradients.losses, losses.detach(), rtol=1e-9, atol=1e-12)
        losses.sum().backward()
        shared = functions.space.select(agent)
        expected = functions.space.flatten(
            {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in shared.items()}
        )
        torch.testing.assert_close(gradients.pulled_back.sum(0), expected, rtol=1e-9, atol=1e-12)
        for name, value in private.items():
            torch.testing.assert_close(value, functions.private[name].grad, rtol=1e-9, atol=1e-12)
        moved = {id(parameter) for parameter in functions.phase.module.parameters()}
        others = {name for name, it in agent.named_parameters() if it.grad is not None and id(it) not in moved}
        assert not others, "the loss of a phase reaches nothing that another phase moves"
