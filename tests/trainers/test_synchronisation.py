"""How often a step of training waits for a GPU: tensors on the CPU stand in for those on one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import sampler_of
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from mtorl.agents import CQL, Agent, BehaviorCloning
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.balancers import Balancer, Equal, GradDrop, PCGrad, UPGrad
from mtorl.trainers.optimizer import OptimizerSettings
from mtorl.trainers.phase_trainer import phase_trainers
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing

READING = ("item", "tolist", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__")


class Watched(TorchFunctionMode):
    """Follows what is computed from some tensors, and notes what of it is read on the CPU.

    A device that is given as an object, not by its name, is that of another tensor.

    Args:
        there: Tensors that are to stand for some on a GPU.

    Attributes:
        waits: Names of the functions that read, in order.
    """

    def __init__(self, there: list[Tensor]) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._there: dict[int, Tensor] = {}  # kept alive, so that no other gets its number
        self.add(there)

    def add(self, there: list[Tensor]) -> None:
        """Follows more tensors."""
        self._there |= {id(it): it for it in there}

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: tuple = (), options: dict[str, Any] | None = None
    ) -> Any:
        found = function(*arguments, **(options or {}))
        inputs = [*tree_leaves(arguments), *tree_leaves(options or {})]
        if not any(torch.is_tensor(it) and id(it) in self._there for it in inputs):
            return found
        name = getattr(function, "__name__", "")
        moved = name == "cpu" or (name == "to" and "cpu" in [it for it in inputs if isinstance(it, str)])
        if moved or name in READING:
            self.waits.append(name)
            return found.view_as(found) if moved else found
        self.add([it for it in tree_leaves(found) if torch.is_tensor(it)])
        return found


def waits(agent: Agent, balancer: Balancer, sharing: Sharing, store: EpisodeStore) -> list[list[str]]:
    """Of the third step, for each phase."""
    phases = phase_trainers(agent, balancer, sharing, OptimizerSettings(), 10, 0)
    sampler, found = sampler_of(agent, store, agent.spec), []
    members = [*agent.children(), *(phase.sharing for phase in phases)]
    watched = Watched([value for it in (agent, *members) for value in (*it.parameters(), *it.buffers())])
    for step in range(3):
        batch = sampler.draw().select([2, 0] if step else [0, 1])
        watched.add([it for it in batch.tensors if batch.tasks])  # these are known before a batch is moved
        for phase in phases:
            watched.waits = []
            with watched:
                phase.move(phase.update(batch, step))
            found.append(watched.waits)
    return found[-len(phases) :]


def test_what_watches_sees_reading() -> None:
    value, other = torch.ones(3), torch.ones(())
    with Watched([value]) as watched:
        double = 2 * value
        bool((double > 0).all())
        host = double.to("cpu", torch.float64)
        float(other), host.tolist()
    assert watched.waits == ["__bool__", "to"]


@pytest.mark.parametrize("sharing", [Shared, RandomMasks])
@pytest.mark.parametrize(("balancer", "own"), [(Equal, 1), (PCGrad, 2), (UPGrad, 2), (GradDrop, 1)])
def test_a_step_waits_once_more_than_its_balancer_must(
    balancer: type[Balancer], own: int, sharing: type[Sharing], store: EpisodeStore, spec: DataSpec
) -> None:
    """A balancer is handed losses, and an aggregation the Gramian; besides, the norm is looked at before the move."""
    agent = BehaviorCloning(spec, hidden=(8,), output_heads="per_task", task_identity="embed")
    (found,) = waits(agent, balancer(), sharing(), store)
    assert found == ["cpu"] * own + ["__float__"]


def test_critics_wait_no_more(store: EpisodeStore, spec: DataSpec) -> None:
    assert waits(CQL(spec, samples=2), Equal(), Shared(), store) == [["cpu", "__float__"]] * 2
