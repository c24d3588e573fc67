"""Policies for many tasks. A new agent is one file here and one line below."""

if __name__ == "agents":
    raise ImportError("import mtorl.agents, not agents: run `pip install -e .` in the repository first")

from mtorl.agents.base import Agent, Phase, TaskLosses
from mtorl.agents.behavior_cloning import BehaviorCloning
from mtorl.agents.decision_transformer import DecisionTransformer
from mtorl.agents.dual_policy import DualPolicy
from mtorl.agents.parameters import ParameterSpace
from mtorl.agents.prompt_decision_transformer import PromptDecisionTransformer
from mtorl.agents.soft_modular import SoftModular

__all__ = [
    "Agent",
    "BehaviorCloning",
    "DecisionTransformer",
    "DualPolicy",
    "ParameterSpace",
    "Phase",
    "PromptDecisionTransformer",
    "SoftModular",
    "TaskLosses",
]
