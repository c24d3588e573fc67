"""A trained agent as something that can be played."""

import copy

import numpy as np
import torch
from numpy.typing import NDArray

from mtorl.agents.base import Agent
from mtorl.envs.base import RolloutContext
from mtorl.trainers.sharing.base import Sharing


class TaskPolicy:
    """An agent and its way of sharing parameters, copied to the CPU; later training does not touch it.

    The parameters of a task are worked out once per block of episodes, not once per step.

    Args:
        agent: The agent.
        sharing: The sharing of each phase, by the phase's name.
    """

    def __init__(self, agent: Agent, sharing: dict[str, Sharing]) -> None:
        self.agent = copy.deepcopy(agent).to("cpu", torch.float32).eval().requires_grad_(False)
        self._sharing = {
            phase.name: copy.deepcopy(sharing[phase.name]).to("cpu")
            for phase in agent.phases
            if not sharing[phase.name].uniform
        }
        self._dense = {
            phase.name: {name: value.clone() for name, value in phase.space.select(self.agent).items()}
            for phase in self.agent.phases
            if phase.name in self._sharing
        }

    def reset(self, context: RolloutContext) -> None:
        """Loads the parameters of the block's task and begins its episodes."""
        for name, sharing in self._sharing.items():
            assert context.tasks is not None and len(set(context.tasks.tolist())) == 1, "a block plays one task"
            effective = sharing.effective(self._dense[name], int(context.tasks[0]))
            self.agent.load_state_dict(effective, strict=False)
        self.agent.reset(context)

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions `[N, A]`."""
        return self.agent.act(observations, rewards)
