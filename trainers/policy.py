"""A trained agent as something that can be played."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.agents.base import Agent
from mtorl.envs.base import RolloutContext
from mtorl.trainers.sharing.base import Point, Sharing
from mtorl.trainers.sharing.group_gate import GateChoice, GroupGate


class TaskPolicy:
    """An agent and its way of sharing parameters, copied to the CPU; later training does not touch it.

    The parameters of a task are worked out once per block of episodes, not once per step. Where the task is hidden and
    a gate is to find the parameters, every candidate acts until all episodes are decided.

    Args:
        agent: The agent.
        sharing: The sharing of each phase, by the phase's name.
    """

    def __init__(self, agent: Agent, sharing: dict[str, Sharing]) -> None:
        self.agent = copy.deepcopy(agent).to("cpu", torch.float32).eval()
        shared = {phase.name: phase.space.select(self.agent) for phase in self.agent.phases}  # before all is frozen
        self.agent.requires_grad_(False).strip()
        self.task_names = agent.spec.task_names
        self._sharing = {
            phase.name: copy.deepcopy(sharing[phase.name]).to("cpu", torch.float32).requires_grad_(False)
            for phase in agent.phases
            if phase.name in agent.acting_phases and not sharing[phase.name].uniform
        }
        self._dense = {
            phase: {name: value.clone() for name, value in shared[phase].items()}
            for phase in shared
            if phase in self._sharing
        }
        self._candidates: list[Agent] = []
        self._gate: GroupGate | None = None
        self._playing: list[Agent] = [self.agent]
        self._choice: GateChoice | None = None

    def reset(self, context: RolloutContext) -> None:
        """Loads the parameters of the block's task, or of the candidates if it is hidden, and begins its episodes."""
        self._choice = None
        if context.tasks is None:
            if not self._candidates:
                self._candidates, self._gate = self._without_task()
            self._playing = self._candidates
            if self._gate is not None:
                self._choice = GateChoice(self._gate, len(context.goals), context.demonstration)
        else:
            self._playing = [self.agent]
            for name, sharing in self._sharing.items():
                assert len(set(context.tasks.tolist())) == 1, "a block plays one task"
                effective = sharing.effective(self._dense[name], int(context.tasks[0]))
                self.agent.load_state_dict(effective, strict=False)
        for agent in self._playing:
            agent.reset(context)

    def beside(self) -> "TaskPolicy":
        """The same, to play other episodes meanwhile; the weights are shared unless those of tasks differ."""
        other = copy.copy(self)
        other.agent = copy.deepcopy(self.agent) if self._sharing else copy.copy(self.agent)
        other._candidates, other._gate, other._choice, other._playing = [], None, None, [other.agent]
        return other

    @property
    def reads_rewards(self) -> bool:
        """Whether its actions depend on what was earned: of agents that ask for a return, and of a gate's choice."""
        return self.agent.reads_rewards or self._choice is not None

    @property
    def shares_all(self) -> bool:
        """Whether all tasks are played with the same parameters."""
        return not self._sharing

    @property
    def demonstration_steps(self) -> int:
        """Steps that a demonstration must have, at least: those of a prompt."""
        return self.agent.prompts.length if self.agent.prompts else 1

    def points(self) -> list[Point]:
        """Where between the tasks it can be played; nowhere for most ways of sharing."""
        return next((points for sharing in self._sharing.values() if (points := sharing.points())), [])

    def at(self, point: Point) -> "TaskPolicy":
        """The same, but it plays all tasks with the parameters at one of these points.

        Raises:
            InputError: There are none between the tasks.
        """
        other = copy.deepcopy(self)
        other._sharing = {name: sharing.at(point) for name, sharing in other._sharing.items()}
        other._candidates = []
        return other

    def _without_task(self) -> tuple[list[Agent], GroupGate | None]:
        """An agent for each set of parameters among which a gate chooses; the phases of an agent have the same."""
        found = {name: sharing.without_task(self._dense[name]) for name, sharing in self._sharing.items()}
        agents = [copy.deepcopy(self.agent) for _ in range(max(map(len, found.values()), default=1))]
        for candidates in found.values():
            for place, agent in enumerate(agents):
                agent.load_state_dict(candidates[place if len(candidates) > 1 else 0], strict=False)
        gates = [self._sharing[name].gate for name, candidates in found.items() if len(candidates) > 1]
        return agents, gates[0] if gates else None

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions `[N, A]`."""
        if self._choice is None:
            return self._playing[0].act(observations, rewards)
        chosen = self._choice(observations, rewards)
        places = sorted(set(chosen.tolist())) if self._choice.settled else range(len(self._playing))
        each = {place: self._playing[place].act(observations, rewards) for place in places}
        actions = np.zeros_like(next(iter(each.values())))
        for place, mine in each.items():
            actions[chosen == place] = mine[chosen == place]
        for place in places:
            self._playing[place].acted(actions)  # each knows the whole episode, should it take over
        return actions

    def acted(self, actions: NDArray[np.float32]) -> None:
        """Tells what was done `[N, A]` instead of what `act` said last."""
        for agent in self._playing:
            agent.acted(actions)


class PolicyPerGroup:
    """Policies of different tasks that are played as one.

    Args:
        task_names: All tasks, in the order in which it is told them.
        policies: Each task is one of them's.
    """

    def __init__(self, task_names: tuple[str, ...], policies: Sequence[TaskPolicy]) -> None:
        self.task_names, self.policies = task_names, tuple(policies)
        places = {name: (one, place) for one in self.policies for place, name in enumerate(one.task_names)}
        self._places = [places[name] for name in task_names]
        self._playing = self.policies[0]

    def reset(self, context: RolloutContext) -> None:
        """Begins a block of episodes of one task.

        Raises:
            InputError: The task is hidden.
        """
        if context.tasks is None:
            raise InputError(
                f"{len(self.policies)} models, one for each group of tasks, cannot act where the task is hidden: "
                "nothing says whose it is. Train one model with --sharing GroupMasks, which has a gate."
            )
        assert len(set(context.tasks.tolist())) == 1, "a block plays one task"
        self._playing, place = self._places[int(context.tasks[0])]
        self._playing.reset(replace(context, tasks=np.full_like(context.tasks, place)))

    def beside(self) -> "PolicyPerGroup":
        """The same, to play other episodes meanwhile."""
        return PolicyPerGroup(self.task_names, [policy.beside() for policy in self.policies])

    @property
    def reads_rewards(self) -> bool:
        """Whether the actions of the policy that is playing depend on what was earned."""
        return self._playing.reads_rewards

    @property
    def demonstration_steps(self) -> int:
        """Steps that a demonstration must have, at least."""
        return max(policy.demonstration_steps for policy in self.policies)

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions `[N, A]`, of the policy whose task is played."""
        return self._playing.act(observations, rewards)

    def acted(self, actions: NDArray[np.float32]) -> None:
        """Tells what was done `[N, A]` instead of what `act` said last."""
        self._playing.acted(actions)
