"""Suites of tasks, collection of episodes and evaluation."""

if __name__ == "envs":
    raise ImportError("import mtorl.envs, not envs: run `pip install -e .` in the repository first")

from mtorl.envs.base import Env, Policy, RolloutContext, Step, Suite, build_suite
from mtorl.envs.metaworld import MetaWorld
from mtorl.envs.point_reach import PointReach

__all__ = ["Env", "MetaWorld", "PointReach", "Policy", "RolloutContext", "Step", "Suite", "build_suite"]
