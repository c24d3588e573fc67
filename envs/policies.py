"""Whatever can act in a suite: the contract, and the two policies that learned ones are measured against."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.envs.base import RolloutContext, Suite


class Policy(Protocol):
    """Whatever acts. Agents, scripted experts and random actions are played by the same code.

    A policy with an attribute `privileged = True` sees the goal even where agents do not; with `knows_task = True` it
    is always told the task. One with a number `demonstration_steps` is shown demonstrations of at least that many. One
    with `task_names` is told its task only where the suite has these tasks in this order. One with a text `description`
    is described by it in the card of what it records. One with a method `acted` is told by it what was done instead of
    what it said last, where its actions are disturbed.
    """

    def reset(self, context: RolloutContext) -> None:
        """Forgets everything: a block of N episodes begins, N as in the context."""
        ...

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """Actions `[N, A]` in [-1, 1] for observations `[N, O]` and the rewards `[N]` of the steps before them."""
        ...


class ExpertPolicy:
    """The suite's scripted expert, as a policy.

    Args:
        suite: Where the experts come from.
    """

    privileged = knows_task = True

    def __init__(self, suite: Suite) -> None:
        self.suite, self.task_names = suite, suite.task_names
        self._experts: list[Callable[[NDArray[np.float32]], NDArray[np.float32]]] = []

    def reset(self, context: RolloutContext) -> None:
        """Looks up the expert of each row's task."""
        if context.tasks is None:
            raise InputError("the scripted expert needs to know the task; leave the task identity visible.")
        self._experts = [self.suite.expert(int(task)) for task in context.tasks]

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """The experts' actions, without noise."""
        return np.stack([expert(row) for expert, row in zip(self._experts, observations, strict=True)])


class RandomPolicy:
    """Uniform random actions, the lower reference row. Its draws depend only on (seed, task, goal or number).

    Args:
        suite: For the dimension of actions.
    """

    knows_task = True

    def __init__(self, suite: Suite) -> None:
        self.suite, self.task_names = suite, suite.task_names
        self._streams: list[np.random.Generator] = []
        self._sizes: list[int] = []

    def reset(self, context: RolloutContext) -> None:
        """Starts each row's own random stream."""
        names = (
            [""] * len(context.goals)
            if context.tasks is None
            else [self.suite.task_names[task] for task in context.tasks]
        )
        numbers = context.goals if context.episodes is None else context.episodes
        self._streams = [
            np.random.default_rng([context.seed, int(number), *name.encode()])
            for name, number in zip(names, numbers, strict=True)
        ]
        known = [None] * len(names) if context.tasks is None else [int(task) for task in context.tasks]
        self._sizes = [self.suite.action_dim if it is None else self.suite.dimensions_of(it)[1] for it in known]

    def act(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.float32]:
        """One draw per row."""
        actions = np.zeros((len(self._streams), self.suite.action_dim), dtype=np.float32)
        for row, stream, size in zip(actions, self._streams, self._sizes, strict=True):
            row[:size] = stream.uniform(-1, 1, size)
        return actions


def check_positions(policy: Policy, task_names: Sequence[str]) -> None:
    """Refuses a policy with `task_names` other than these, in whose order it would be told its task.

    Raises:
        InputError: Names or order differ.
    """
    known = getattr(policy, "task_names", task_names)
    if tuple(known) != tuple(task_names):
        raise InputError(
            f"the policy knows the tasks {list(known)}, but is to be told its task as a position in "
            f"{list(task_names)}. Use the same tasks in the same order."
        )
