"""A trained policy for `metaworld.evaluation.evaluation`, the package's own loop."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.runs.player import Player


class MetaWorldAgent:
    """What `metaworld.evaluation.evaluation` plays.

        policy = mtorl.load_policy("runs/bc")
        envs = gym.make_vec("Meta-World/MT10", vector_strategy="sync", seed=0, use_one_hot=True)
        agent = mtorl.MetaWorldAgent(policy)
        success, returns, per_task, _ = evaluation(agent, agent.watch(envs), num_episodes=50)

    That loop draws goals with replacement from those of a seed of its own, and ends episodes at their first success;
    results agree with `mtorl evaluate` within their intervals.

    Args:
        policy: Acts.
        tasks: Names of the tasks of the environments, in their order; by default those of the policy.
    """

    def __init__(self, policy: Player, tasks: Sequence[str] | None = None) -> None:
        self.policy, self.tasks = policy, tuple(tasks or policy.task_names)
        self._rewards: NDArray[np.float32] | None = None

    def watch(self, envs: Any) -> Any:
        """The same environments; the rewards that they give are noted for policies that ask for a return."""
        return _Watched(envs, self)

    def reset(self, mask: NDArray[np.bool_]) -> None:
        """New episodes begin in some environments."""
        if len(mask) != len(self.tasks):
            raise InputError(
                f"there are {len(mask)} environments and {len(self.tasks)} tasks; expected one for each: "
                "MetaWorldAgent(policy, tasks=[...]) names them in the order of the environments."
            )
        if mask.all():
            self._rewards = None
            self.policy.reset(self.tasks)
        elif mask.any():
            self.policy.reset(where=mask)

    def eval_action(self, observations: NDArray[np.floating]) -> NDArray[np.float32]:
        """Actions `[N, 4]` for observations `[N, 39]`, or with the task's vector behind them, which is left out."""
        if self._rewards is None and self.policy.needs_rewards:
            raise InputError(
                "this policy asks for a return and has to be told rewards, which that loop does not do: "
                "give it agent.watch(envs) instead of envs."
            )
        return self.policy.act(observations[:, : self.policy.suite.observation_dim], self._rewards)


class _Watched:
    """Environments whose rewards an agent is told."""

    def __init__(self, envs: Any, agent: MetaWorldAgent) -> None:
        self._envs, self._agent = envs, agent

    def step(self, actions: Any) -> Any:
        found = self._envs.step(actions)
        self._agent._rewards = np.asarray(found[1], dtype=np.float32)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._envs, name)
