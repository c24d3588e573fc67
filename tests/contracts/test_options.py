"""Every number among the options of all families and settings: NaN is refused, and so is infinity."""

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import partial
from typing import Any, get_args, get_type_hints

import pytest
from families import BALANCER_OPTIONS, BALANCERS, SMALL_AGENTS, concrete

from mtorl import InputError
from mtorl.agents import Agent
from mtorl.agents.heads import Head
from mtorl.agents.networks import Backbone
from mtorl.datasets.prompts import PromptSettings
from mtorl.datasets.sampler import SamplingSettings
from mtorl.datasets.spec import DataSpec
from mtorl.envs import MetaWorld, PointReach, Suite
from mtorl.envs.protocol import Protocol
from mtorl.runs.experiment import Experiment
from mtorl.trainers.balancers import COSMOS, PBI, PCGrad
from mtorl.trainers.balancers.wrappers import GradientWrapper
from mtorl.trainers.groupers import TaskGrouper
from mtorl.trainers.offline import Schedule
from mtorl.trainers.optimizer import OptimizerSettings
from mtorl.trainers.sharing import Sharing

SETTINGS = [OptimizerSettings, PromptSettings, SamplingSettings, Schedule, Protocol]
REQUIRED: dict[str, dict] = {
    **{kind.__name__: {} for kind in BALANCERS},
    **{
        name: {key.removeprefix("balancer."): it for key, it in found.items() if key.startswith("balancer.")}
        for name, found in BALANCER_OPTIONS.items()
    },
    **{kind.__name__: options for kind, options in SMALL_AGENTS.items()},
    "AntDir": {"directions": [0.1] * 50},
    "FrozenMasks": {"file": "masks.safetensors"},
    "GroupMasks": {"grouping": "groups.json"},
    **{kind.__name__: {"preferences": [1.0, 2.0]} for kind in (COSMOS, PBI)},
    **{kind.__name__: {"features": 3, "actions": 2, "tasks": 2} for kind in concrete(Head)},
}
"""What members cannot be built without."""


def required(kind: type) -> dict[str, Any]:
    """The same of one member; networks and groupers may have one name."""
    if issubclass(kind, GradientWrapper):
        return {"inner": PCGrad()}
    return {"inputs": 3, "code": 4} if issubclass(kind, Backbone) else REQUIRED.get(kind.__name__, {})


UNBOUNDED = {
    "epsilon": "tasks may be as far apart as they like",
    "clip": "nothing is clipped",
    "noise_clip": "nothing is clipped",
}
"""Options that may be infinite, and what that means."""


def _has_floats(annotation: Any) -> bool:
    return annotation is float or any(map(_has_floats, get_args(annotation)))


def _floats(kind: type) -> dict[str, Any]:
    """Names and defaults of a class's own and inherited options that are numbers, or sequences of numbers."""
    found: dict[str, Any] = {}
    for parent in kind.__mro__:
        if "__init__" not in vars(parent):
            continue
        signature, hints = inspect.signature(parent.__init__), get_type_hints(parent.__init__)
        found = {name: it.default for name, it in signature.parameters.items() if _has_floats(hints.get(name))} | found
        if not any(it.kind is it.VAR_KEYWORD for it in signature.parameters.values()):
            break  # it hands nothing on
    return found


def _members() -> Iterator[tuple[type, str]]:
    roots = (Agent, Backbone, Head, Sharing, Suite, TaskGrouper)
    families = [kind for root in roots for kind in dict.fromkeys(concrete(root)) if not inspect.isabstract(kind)]
    for kind in [*families, *BALANCERS, *SETTINGS]:
        if kind.__module__.startswith("mtorl."):
            yield from ((kind, name) for name in _floats(kind))


def _spoilt(kind: type, name: str, number: float) -> list[Any]:
    """The option with that number, at every place if it is a sequence."""
    value = required(kind).get(name, _floats(kind)[name])
    if isinstance(value, tuple | list):
        return [[*value[:place], number, *value[place + 1 :]] for place in range(len(value))]
    return [number]


OPTIONS = [pytest.param(kind, name, id=f"{kind.__name__}-{name}") for kind, name in _members()]


def test_the_options_are_found() -> None:
    found = {(kind.__name__, name) for kind, name in _members()}
    assert {("IQL", "discount"), ("CAGrad", "c"), ("FixedWeights", "values"), ("OptimizerSettings", "betas")} <= found
    assert {("GroupMasks", "sparsity"), ("M3DT", "dropout"), ("SamplingSettings", "top")} <= found
    assert {("SmallTowers", "gamma"), ("VariationalHeads", "variance")} <= found
    assert all(is_dataclass(kind) for kind in SETTINGS) and {*_floats(Experiment)} == {"shares"}  # for check_shares
    assert not _floats(MetaWorld) and not _floats(PointReach)
    assert {name for name, _ in UNBOUNDED.items()} <= {name for _, name in found}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_what_is_no_number_is_refused(kind: type, name: str, number: float, spec: DataSpec) -> None:
    build: Callable[..., Any] = partial(kind, spec) if issubclass(kind, Agent) else kind
    for value in _spoilt(kind, name, number):
        options = {**required(kind), name: value}
        if number == math.inf and name in UNBOUNDED:
            build(**options)
            continue
        with pytest.raises(InputError, match=f"{name}|{name.replace('_', ' ')}"):
            build(**options)
