"""Small members of every family, for the contracts."""

import importlib.util
from functools import partial

import numpy as np
import pytest
import torch
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
from mtorl.agents.actor_critic import ActorCritic
from mtorl.agents.networks import CARE, MOORE, FiLM, MLPBackbone, PaCo, SoftModularMLP
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.families import FAMILIES, load
from mtorl.trainers.balancers import (
    Balancer,
    GradientAggregation,
    LossWeighting,
    MatrixAggregation,
    TorchJD,
)
from mtorl.trainers.balancers.wrappers import (
    Averaged,
    GradientWrapper,
    Layerwise,
    Prescaled,
    Rescaled,
    Reused,
    Subsampled,
)
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
]
"""Small ones, of every kind."""
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


def _name(option: object) -> str:
    return option.func.__name__ if isinstance(option, partial) else str(option)


AGENT_VARIANTS = [
    pytest.param((kind, {**small, **options}), id=f"{kind.__name__}-{'-'.join(map(_name, options.values()))}")
    for kind, small in SMALL_AGENTS.items()
    for options in (
        {"task_identity": "none"},
        {"task_identity": "onehot"},
        {"task_identity": "embed", "output_heads": "per_task"},
        *([] if issubclass(kind, ActorCritic) else [{"task_identity": "none", "output_heads": "linear"}]),
        *([{"critic_heads": "per_task"}] if issubclass(kind, ActorCritic) else []),
        *([{"distribution": "deterministic"}] if kind is IQL else []),
        *(
            []
            if issubclass(kind, SoftModular | ActorCritic | M3DT)
            else [{"task_identity": "onehot", "task_gain": True}]
        ),
        *([{"network": network} for network in NETWORKS[1:]] if kind is BehaviorCloning else []),
        *([{"actor": NETWORKS[2], "critic": NETWORKS[3]}] if kind is TD3BC else []),
        *([{"routing": "task"}, {"distribution": "gaussian"}] if kind is SoftModular else []),
        {"task_identity": "onehot", "per_task_normalisation": True},
        *(
            [
                {"action_context": "full"},
                {"action_context": "dropout"},
                {"return_conditioning": False},
                {"time": "episode", "action_context": "full", "return_conditioning": False},
                *(
                    []
                    if kind is M3DT
                    else [
                        {"ffn": "soft_modules", "task_identity": "onehot", "router_context": "task"},
                        {"ffn": "soft_modules", "task_identity": "none", "router_context": "token"},
                    ]
                ),
            ]
            if issubclass(kind, DecisionTransformer)
            else []
        ),
    )
]


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
ABSTRACT = {Balancer, GradientAggregation, GradientWrapper, LossWeighting, MatrixAggregation}
BALANCERS = sorted(
    (k for k in concrete(Balancer) if k not in ABSTRACT and k.__module__.startswith("mtorl.")), key=lambda k: k.__name__
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
