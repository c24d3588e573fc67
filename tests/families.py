"""Small members of every family, for the contracts."""

import pytest

from mtorl.agents import BehaviorCloning, DecisionTransformer

SMALL_AGENTS: dict[type, dict] = {
    BehaviorCloning: {"hidden": (24, 24)},
    DecisionTransformer: {"width": 16, "layers": 2, "attention_heads": 2, "context": 6, "dropout": 0.0},
}


AGENT_VARIANTS = [
    pytest.param((kind, {**small, **options}), id=f"{kind.__name__}-{'-'.join(map(str, options.values()))}")
    for kind, small in SMALL_AGENTS.items()
    for options in (
        {"task_identity": "none"},
        {"task_identity": "onehot"},
        {"task_identity": "embed", "output_heads": "per_task"},
        {"task_identity": "none", "output_heads": "linear"},
        {"task_identity": "onehot", "task_gain": True},
        {"task_identity": "onehot", "per_task_normalisation": True},
        *(
            [
                {"action_context": "full"},
                {"action_context": "dropout"},
                {"return_conditioning": False},
                {"time": "episode", "action_context": "full", "return_conditioning": False},
            ]
            if kind is DecisionTransformer
            else []
        ),
    )
]


def concrete(kind: type) -> list[type]:
    """A class and everything below it."""
    return [kind, *[inner for sub in kind.__subclasses__() for inner in concrete(sub)]]
