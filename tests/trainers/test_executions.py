"""What executions keep in memory, and gradients where masks are off; that all agree is a contract."""

import pytest
import torch
from families import kept_by, sampler_of
from torch import Tensor

from mtorl import InputError
from mtorl.agents import BehaviorCloning
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.sharing import RandomMasks, Shared


def test_dense_gradients_see_where_a_mask_is_off(spec: DataSpec, store: EpisodeStore) -> None:
    agent = BehaviorCloning(spec, hidden=(24, 24))
    masks = RandomMasks(sparsity=0.5)
    masks.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
    functions, batch = PhaseFunctions(agent), sampler_of(agent, store, spec).draw()
    dense = functions.dense_gradients([batch], masks).dense.clone()
    pulled_back = functions.gradients(batch, masks)[0].pulled_back
    off = torch.stack([~kept_by(masks, functions.space, task) for task in range(3)])
    assert dense[off].any() and not pulled_back[off].any()
    assert torch.equal(pulled_back[~off], dense[~off])


def test_the_matrix_is_made_once(spec: DataSpec, store: EpisodeStore) -> None:
    agent = BehaviorCloning(spec, hidden=(8,))
    batch = sampler_of(agent, store, spec).draw()
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
    PhaseFunctions(agent, execution="loop").gradients(sampler_of(agent, store, spec).draw(), Shared())
    assert alive == [1, 1, 1]


def test_unknown_executions_are_refused(spec: DataSpec) -> None:
    with pytest.raises(InputError, match="execution is 'fast'; expected one of auto, joint, loop, vmap"):
        PhaseFunctions(BehaviorCloning(spec), 0, "fast")  # type: ignore[arg-type]
