"""Policies for many tasks. A new agent is one file here and one line below."""

if __name__ == "agents":
    raise ImportError("import mtorl.agents, not agents: run `pip install -e .` in the repository first")

from mtorl.agents.base import Agent, Phase, TaskLosses
from mtorl.agents.behavior_cloning import BehaviorCloning
from mtorl.agents.cql import CQL
from mtorl.agents.decision_transformer import DecisionTransformer
from mtorl.agents.dual_policy import DualPolicy
from mtorl.agents.iql import IQL
from mtorl.agents.m3dt import M3DT
from mtorl.agents.parameters import ParameterSpace
from mtorl.agents.prompt_decision_transformer import PromptDecisionTransformer
from mtorl.agents.soft_modular import SoftModular
from mtorl.agents.td3_bc import TD3BC

__all__ = [
    "CQL",
    "IQL",
    "M3DT",
    "TD3BC",
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
