"""Small members of every family, for the contracts."""

import importlib.util
from collections.abc import Mapping
from functools import partial
from inspect import isabstract
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from pairwise import cover
from torch import Tensor

from mtorl.agents import (
    CQL,
    IQL,
    M3DT,
    TD3BC,
    Agent,
    BehaviorCloning,
    DecisionTransformer,
    DualPolicy,
    PromptDecisionTransformer,
    SoftModular,
)
from mtorl.agents.heads import RegressionHead, SmallTowers, VariationalHeads
from mtorl.agents.networks import CARE, DMTG, MOORE, FiLM, MLPBackbone, PaCo, SoftModularMLP
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.families import FAMILIES, load
from mtorl.trainers.balancers import (
    Balancer,
    TorchJD,
)
from mtorl.trainers.balancers.wrappers import (
    Averaged,
    Layerwise,
    Prescaled,
    Rescaled,
    Reused,
    Subsampled,
)
from mtorl.trainers.groupers import FixedGroups
from mtorl.trainers.phase_trainer import phase_sharing
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.sharing import Shared, Sharing
from mtorl.trainers.sharing.masks import TaskMasks

NETWORK = partial(MLPBackbone, hidden=(24, 24))
ACTOR = partial(SoftModularMLP, modules=2, layers=2, width=8, base=(12,), gating=(8,))
NETWORKS = [
    NETWORK,
    ACTOR,
    partial(MOORE, experts=3, hidden=(12, 8)),
    partial(PaCo, components=2, hidden=(12, 8)),
    partial(CARE, encoders=3, encoding=6, hidden=(12, 8)),
    partial(FiLM, hidden=(12, 8)),
    partial(DMTG, branches=2, stem=(12,), hidden=(8,)),
]
"""Small ones, of every kind."""
VARIATIONAL = partial(VariationalHeads, likelihood="learned")
TOWERS = partial(SmallTowers, main=partial(RegressionHead, kind="per_task"), tower="bottleneck", width=3)
"""Heads with other options than the usual ones."""
SMALL_AGENTS: dict[type, dict] = {
    BehaviorCloning: {"hidden": (24, 24)},
    DualPolicy: {
        "width": 16,
        "layers": 2,
        "attention_heads": 2,
        "context": 6,
        "dropout": 0.0,
        "policy_width": 8,
        "policy_base": (12,),
        "policy_gating": (8,),
        "act_with": "transformer",
    },
    IQL: {"actor": ACTOR, "critic": NETWORK},
    TD3BC: {"actor": NETWORK, "critic": NETWORK},
    CQL: {"actor": NETWORK, "critic": NETWORK, "samples": 2, "imitation_steps": 0},
    SoftModular: {"modules": 3, "layers": 3, "width": 8, "base": (12,), "gating": (8,)},
    M3DT: {
        "groups": [["towards-0", "away-0"], ["towards-2"]],
        "units": 8,
        "width": 16,
        "layers": 2,
        "attention_heads": 2,
        "context": 6,
        "dropout": 0.0,
    },
    DecisionTransformer: {"width": 16, "layers": 2, "attention_heads": 2, "context": 6, "dropout": 0.0},
    PromptDecisionTransformer: {
        "width": 16,
        "layers": 2,
        "attention_heads": 2,
        "context": 6,
        "dropout": 0.0,
        "prompt_length": 3,
    },
}


_SWITCH = (False, True)
_ALL: dict[str, tuple] = {"task_identity": ("onehot", "none", "embed"), "per_task_normalisation": _SWITCH}
_HEADS = ("shared", "per_task", "linear", "per_group")
_NAMED = (None, VARIATIONAL, SmallTowers)
_FEED_FORWARD = {**_ALL, "output_heads": _HEADS, "head": _NAMED}
_ACTOR_CRITIC = {**_ALL, "output_heads": (*_HEADS[:2], "per_group"), "critic_heads": _HEADS[:2]}
_TRANSFORMER = {
    **_ALL,
    "output_heads": _HEADS,
    "action_context": ("none", "full", "dropout"),
    "return_conditioning": (True, False),
    "time": ("window", "episode", "none"),
}
_MODULES = {**_TRANSFORMER, "task_gain": _SWITCH, "ffn": ("dense", "task", "token")}
AGENT_OPTIONS: dict[type, dict[str, tuple]] = {
    BehaviorCloning: {
        **_FEED_FORWARD,
        "head": (None, VariationalHeads, TOWERS),
        "task_gain": _SWITCH,
        "network": (None, *NETWORKS[1:]),
    },
    SoftModular: {**_FEED_FORWARD, "routing": ("state", "task"), "distribution": ("deterministic", "gaussian")},
    IQL: {**_ACTOR_CRITIC, "distribution": ("gaussian", "deterministic")},
    TD3BC: {
        **_ACTOR_CRITIC,
        "head": (None, VariationalHeads, SmallTowers),
        "networks": (None, (NETWORKS[2], NETWORKS[3])),
    },
    CQL: _ACTOR_CRITIC,
    M3DT: _TRANSFORMER,
    DecisionTransformer: {**_MODULES, "head": (None, partial(VariationalHeads, warmup=0.0))},
    PromptDecisionTransformer: {**_MODULES, "ffn": ("dense", "prompt", "task", "token")},
    DualPolicy: {**_MODULES, "head": (None, partial(SmallTowers, main=VariationalHeads))},
}
"""Values of their options under which all properties must hold; the first is the usual one."""


ONCE = ("network", "networks", "head")
"""Options of which every value occurs, not every pair: networks have properties of their own to show."""


def _allowed(row: Mapping[str, Any]) -> bool:
    """Whether an agent can be built with these values."""
    told = row["task_identity"] != "none"
    reads_task = any(row.get(name) for name in ("network", "networks")) or "task" in (
        row.get("ffn"),
        row.get("routing"),
    )
    return not (
        (reads_task and not told and row.get("network") is not ACTOR)
        or (row.get("task_gain") and row.get("network"))
        or (row.get("distribution") == "gaussian" and row.get("output_heads") == "linear")
        or (row.get("head") and (row["output_heads"] != "shared" or row.get("distribution") == "gaussian"))
    )


def agent_rows() -> list[dict[str, Any]]:
    """Everything that can be combined."""
    found = []
    for kind, options in AGENT_OPTIONS.items():
        found += [{"kind": kind, **dict(zip(options, values, strict=True))} for values in product(*options.values())]
    return [row for row in found if _allowed(row)]


def _arguments(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of the constructor; some options here are two of it."""
    found = {name: value for name, value in row.items() if name not in ("kind", "networks", "ffn")}
    if row.get("networks"):
        found |= dict(zip(("actor", "critic"), row["networks"], strict=True))
    if row.get("ffn", "dense") != "dense":
        found |= {"ffn": "soft_modules", "router_context": row["ffn"]}
    return SMALL_AGENTS[row["kind"]] | found


def _words(row: Mapping[str, Any]) -> str:
    """What is unusual about it."""
    words = [row["kind"].__name__]
    for name, values in AGENT_OPTIONS[row["kind"]].items():
        value = row[name]
        if value == values[0]:
            continue
        parts = value if isinstance(value, tuple) else (value,)
        words += [name] if value is True else [f"no_{name}"] if value is False else map(_word, parts)
    return "-".join(words)


def _word(value: Any) -> str:
    if isinstance(value, partial):
        return value.func.__name__
    return value.__name__ if isinstance(value, type) else str(value)


AGENT_VARIANTS = [pytest.param((row["kind"], _arguments(row)), id=_words(row)) for row in cover(agent_rows(), ONCE)]
"""Of every agent, and of all options: every two values that can stand together do so in one of them."""


def sampler_of(agent: Agent, store: EpisodeStore, spec: DataSpec, windows: int = 5, seed: int = 3) -> TaskSampler:
    """Draws what an agent trains on."""
    generator = np.random.default_rng(seed)
    return TaskSampler(
        [store],
        spec.task_names,
        windows,
        agent.window,
        generator,
        next_observations=agent.next_observations,
        prompts=agent.prompts,
    )


GROUPER_OPTIONS: dict[str, dict] = {
    "AgreementKMeans": {"batches": 3},
    "CosineAffinity": {"batches": 3},
    "DMTG": {"steps": 5, "hidden": (8,)},
    "GradTAG": {"windows": 5, "dimension": 20},
}
"""What keeps groupers short."""


def grouper_of(kind: type, groups: int) -> Any:
    """One that can make that many groups of the tasks."""
    if kind is FixedGroups:
        names = ["towards-0", "towards-2", "away-0"]
        return FixedGroups([names[place::groups] for place in range(groups)] if 1 <= groups <= 3 else [names])
    return kind(**GROUPER_OPTIONS.get(kind.__name__, {}))


load(*FAMILIES)


def concrete(kind: type) -> list[type]:
    """A class and everything below it."""
    return [kind, *[inner for sub in kind.__subclasses__() for inner in concrete(sub)]]


WRAPPERS = [Averaged, Layerwise, Prescaled, Rescaled, Reused, Subsampled]
BALANCER_OPTIONS: dict[str, dict] = {
    "FixedWeights": {"balancer.values": [0.2, 0.5, 0.3]},
    "TorchJD": {"balancer.name": "MGDA"},
    **{kind.__name__: {"balancer.inner": "PCGrad"} for kind in WRAPPERS},
    "ConnectionStrength": {"agent.task_gain": True},
    "DWA": {"balancer.period": 4},
    "WeightedPCGrad": {"balancer.period": 4},
    "STCH": {"balancer.warmup": 6},
    "CDTT": {"balancer.window": 3},
    "SelectiveTaskGroups": {"balancer.warmup": 5, "balancer.probe_every": 2, "balancer.regroup_every": 4},
    "BayesAgg": {"agent.output_heads": "linear", "balancer.warmup": 3, "balancer.refresh": 4},
}
BALANCERS = sorted(
    (k for k in concrete(Balancer) if not isabstract(k) and k.__module__.startswith("mtorl.")), key=lambda k: k.__name__
)
if importlib.util.find_spec("torchjd") is None:
    BALANCERS.remove(TorchJD)


def run_options(kind: type, options: dict) -> dict:
    """Options of a run of 20 steps with a balancer, on two of the tasks at a time."""
    name = kind.__name__
    return {
        **options,
        "balancer": name,
        **{f"{key}": value for key, value in BALANCER_OPTIONS.get(name, {}).items()},
        "schedule": {"steps": 20, "log_every": 5, "evaluate_every": 0, "save_every": 10},
        "tasks_per_batch": 2,
    }


def kept_by(masks: TaskMasks, space: ParameterSpace, task: int) -> Tensor:
    """What a task's mask keeps of all shared scalars, bool `[P]`."""
    kept = torch.ones(len(space), dtype=torch.bool)
    for name in masks.places:
        kept[space.slice_of(name)] = masks.mask(name, task).flatten()
    return kept


def policy_of(agent: Agent, sharing: type[Sharing] = Shared) -> TaskPolicy:
    """What plays an agent as it is, trained or not."""
    return TaskPolicy(agent, phase_sharing(agent, sharing(), 0))
