"""All executions give the same losses and gradients, for every agent and way of sharing."""

import pytest
import torch
from families import AGENT_VARIANTS, kept_by, sampler_of
from torch import Tensor

from mtorl import InputError
from mtorl.agents import Agent, BehaviorCloning
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import BLOCK, FEW, TaskGradients, gramian
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing

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


def test_dense_gradients_see_where_a_mask_is_off(spec: DataSpec, store: EpisodeStore) -> None:
    agent = BehaviorCloning(spec, hidden=(24, 24))
    masks = RandomMasks(sparsity=0.5)
    masks.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
    functions, batch = PhaseFunctions(agent), draw(agent, store, spec, torch.float32)
    dense = functions.dense_gradients([batch], masks).dense.clone()
    pulled_back = functions.gradients(batch, masks)[0].pulled_back
    off = torch.stack([~kept_by(masks, functions.space, task) for task in range(3)])
    assert dense[off].any() and not pulled_back[off].any()
    assert torch.equal(pulled_back[~off], dense[~off])


def test_the_matrix_is_made_once(spec: DataSpec, store: EpisodeStore) -> None:
    agent = BehaviorCloning(spec, hidden=(8,))
    batch = draw(agent, store, spec, torch.float32)
    functions = PhaseFunctions(agent)
    first = functions.gradients(batch, Shared())[0].pulled_back.data_ptr()
    assert functions.gradients(batch.select([1]), Shared())[0].pulled_back.data_ptr() == first
    assert functions.gradients(batch, Shared())[0].pulled_back.data_ptr() == first


def test_the_loop_frees_each_graph_before_the_next(
    spec: DataSpec, store: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = BehaviorCloning(spec, hidden=(8,))
    alive: list[int] = []
    living: set[int] = set()

    class Watch(torch.autograd.Function):
        """Counts the graphs that still hold what they saved."""

        @staticmethod
        def forward(context, values: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
            context.token = Token()
            return values.clone()

        @staticmethod
        def backward(context, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def, override]
            return gradient

    class Token:
        def __init__(self) -> None:
            living.add(id(self))
            alive.append(len(living))

        def __del__(self) -> None:
            living.discard(id(self))

    original = agent.backbone.forward
    monkeypatch.setattr(agent.backbone, "forward", lambda *inputs: Watch.apply(original(*inputs)))
    PhaseFunctions(agent, execution="loop").gradients(draw(agent, store, spec, torch.float32), Shared())
    assert alive == [1, 1, 1]


def test_unknown_executions_are_refused(spec: DataSpec) -> None:
    with pytest.raises(InputError, match="execution is 'fast'; expected auto, joint, loop or vmap"):
        PhaseFunctions(BehaviorCloning(spec), 0, "fast")  # type: ignore[arg-type]


def test_the_gramian_is_symmetric_and_in_float64() -> None:
    rows = torch.randn(7, 1000)
    gradients = TaskGradients(torch.ones(7), rows, torch.arange(7))
    assert gradients.gramian.dtype == torch.float64
    assert torch.equal(gradients.gramian, gradients.gramian.T)
    torch.testing.assert_close(gradients.gramian, rows.double() @ rows.double().T, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("columns", [0, 1, FEW, FEW + 1, FEW + BLOCK + 7, 700_000])
def test_the_gramian_is_exact_to_a_hundred_millionth(columns: int) -> None:
    rows = torch.randn(5, columns, generator=torch.Generator().manual_seed(columns)) + 0.5
    rows[3] = rows[2] * (1 + 1e-3)  # nearly parallel
    rows[4] *= 1e-12
    exact = rows.double() @ rows.double().T
    norms = exact.diag().sqrt()
    assert ((gramian(rows) - exact).abs() <= 1e-8 * norms[:, None] * norms).all()
