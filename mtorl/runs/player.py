"""A trained policy to take away: told the task by its name, asked for actions in environments of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mtorl import InputError
from mtorl.datasets.episode import Demonstration
from mtorl.envs.base import RolloutContext, Suite
from mtorl.envs.protocol import Protocol
from mtorl.trainers.policy import PolicyPerGroup, TaskPolicy

Told = str | int | Sequence[str | int] | None
"""A task by its name or position, one for each environment, or None: it is hidden."""


class Player:
    """A trained policy, played in environments of one's own, one or many at a time.

        policy = mtorl.load_policy("runs/bc")
        policy.reset(task="reach-v3")
        action = policy.act(observation)

    Environments are played in blocks of the size that evaluations have, filled up with zeros: the actions are those of
    an evaluation bit for bit, where an episode stands at the same place among those of its task; elsewhere last bits
    may differ, as where other numbers of rows are multiplied at once. It is also a `Policy`: called with a
    `RolloutContext`, `reset` begins a block of an evaluation.

    Args:
        policy: What acts.
        suite: What it was trained for: its tasks, their dimensions, and whether agents see the goal.
        block: Rows that it acts for at once.

    Attributes:
        task_names: What it can be told.
    """

    def __init__(self, policy: TaskPolicy | PolicyPerGroup, suite: Suite, block: int = Protocol.block) -> None:
        self.policy, self.suite, self.block = policy, suite, block
        self.task_names = policy.task_names
        self._own = [suite.of(task) for task in range(len(self.task_names))]
        self._told: list[int | None] | int | None = None
        self._shown: Demonstration | None = None
        self._begun = self._in_evaluation = False
        self._blocks: list[_Block] = []
        self._free: list[TaskPolicy | PolicyPerGroup] = []
        self._rows = 0

    @property
    def demonstration_steps(self) -> int:
        """Steps that a demonstration must have, at least."""
        return self.policy.demonstration_steps

    @property
    def needs_rewards(self) -> bool:
        """Whether the next action depends on the reward of the step before."""
        return any(block.steps and block.policy.reads_rewards for block in self._blocks)

    def reset(
        self, task: Told | RolloutContext = None, where: ArrayLike | None = None, shown: Demonstration | None = None
    ) -> None:
        """Begins an episode in every environment.

        Args:
            task: Its name or position; several for environments of different tasks, in their order; None if the
                policy is not to be told, or, with `where`, if tasks stay the same.
            where: bool `[N]`: begins new episodes in these of N environments, the others go on.
            shown: A recorded episode of the task, for policies that read one of tasks that they are not told.

        Raises:
            InputError: It knows no such task, or the numbers of tasks and environments differ.
        """
        if isinstance(task, RolloutContext):
            self._in_evaluation = True
            self.policy.reset(task)
            return
        self._in_evaluation = False
        if where is not None:
            self._again(np.asarray(where), task, shown)
            return
        several = isinstance(task, Sequence) and not isinstance(task, str)
        self._told = [self._position(it) for it in task] if several else self._position(task)  # type: ignore
        self._shown, self._begun = shown, False
        self._drop(np.ones(self._rows, dtype=bool))

    def act(self, observation: ArrayLike, reward: ArrayLike | None = None) -> NDArray[np.float32]:
        """What to do.

        Args:
            observation: `[O]` of one environment or `[N, O]` of N, as the suite's environments give them; where tasks
                have less than O numbers, theirs.
            reward: Of the step before, a number or `[N]`; 0 in a new episode, where anything else is not looked at.
                Only policies that ask for a return need it.

        Returns:
            `[A]` or `[N, A]`, float32 in [-1, 1].

        Raises:
            InputError: The task is hidden from a policy that needs it, the shape is another, numbers are not finite, or
                rewards are needed.
        """
        seen = np.asarray(observation, dtype=np.float32)
        if self._in_evaluation:
            return self.policy.act(seen, np.asarray(reward, dtype=np.float32))
        one, seen = seen.ndim == 1, np.atleast_2d(seen)
        if not self._begun:
            self._begin(len(seen))
        self._check(seen)
        earned = np.zeros(len(seen), dtype=np.float32)
        if reward is not None:
            earned[:] = np.asarray(reward, dtype=np.float32)
        actions = np.zeros((len(seen), self.suite.action_dim), dtype=np.float32)
        if reward is None and self.needs_rewards:
            raise InputError(
                "this policy asks for a return, of which it takes what was earned: expected the reward of the step "
                "before, policy.act(observation, reward)."
            )
        for block in self._blocks:
            suite = self.suite if block.task is None else self._own[block.task]
            actions[block.rows] = block.act(seen[block.rows], earned[block.rows], suite, self.block)
        if not np.isfinite(actions).all():
            raise InputError("the policy's actions hold NaN or infinity; was its training stable?")
        actions = np.clip(actions, -1.0, 1.0)
        if seen.shape[1] != self.suite.observation_dim:  # every row is of a task with these dimensions
            actions = actions[:, : self.suite.dimensions_of(self._blocks[0].task or 0)[1]]
        return actions[0] if one else actions

    def acted(self, actions: NDArray[np.float32]) -> None:
        """Tells, in an evaluation, what was done `[N, A]` instead of what `act` said last."""
        self.policy.acted(actions)

    def _position(self, task: Any) -> int | None:
        if task is None:
            return None
        if isinstance(task, str) and task in self.task_names:
            return self.task_names.index(task)
        if isinstance(task, int | np.integer) and 0 <= task < len(self.task_names):
            return int(task)
        raise InputError(f"the policy knows no task {task!r}; expected one of {', '.join(self.task_names)}.")

    def _begin(self, rows: int) -> None:
        """Begins the first episodes, as soon as it is known how many there are."""
        if isinstance(self._told, list) and len(self._told) != rows:
            raise InputError(
                f"reset was told {len(self._told)} tasks, act is given observations of {rows} environments; expected "
                "one task for each, or one for all."
            )
        self._told = self._told if isinstance(self._told, list) else [self._told] * rows
        self._rows = rows
        self._add(np.arange(rows), self._shown)
        self._begun = True

    def _again(self, where: NDArray[Any], task: Any, shown: Demonstration | None) -> None:
        """New episodes in some of the environments."""
        if not self._begun:
            if where.all():
                self.reset(self._told if task is None else task, shown=shown or self._shown)  # type: ignore[arg-type]
                return
            raise InputError("no episode was begun yet; call reset without `where` first.")
        if where.shape != (self._rows,) or where.dtype != np.bool_:
            raise InputError(
                f"`where` is {where.dtype} of shape {list(where.shape)}; expected bool [{self._rows}], one for each "
                "environment."
            )
        assert isinstance(self._told, list)
        rows = np.flatnonzero(where)
        several = isinstance(task, Sequence) and not isinstance(task, str)
        if several and len(task) != self._rows:
            raise InputError(f"reset was told {len(task)} tasks; expected {self._rows}, one for each environment.")
        if task is not None:
            for row in rows.tolist():
                self._told[row] = self._position(task[row] if several else task)
        self._drop(where)
        self._add(rows, shown or self._shown)

    def _drop(self, where: NDArray[np.bool_]) -> None:
        """Ends the episodes of some rows."""
        for block in self._blocks:
            keep = ~where[block.rows]
            block.rows, block.places = block.rows[keep], block.places[keep]
        self._free += [block.policy for block in self._blocks if not len(block.rows)]
        self._blocks = [block for block in self._blocks if len(block.rows)]

    def _add(self, rows: NDArray[np.intp], shown: Demonstration | None) -> None:
        """Begins blocks for these rows, which belong to no other."""
        assert isinstance(self._told, list)
        for task in dict.fromkeys(self._told[row] for row in rows.tolist()):
            mine = np.array([row for row in rows.tolist() if self._told[row] == task])
            for first in range(0, len(mine), self.block):
                policy = self._free.pop() if self._free else self.policy.beside()
                try:
                    policy.reset(self._context(task, shown))
                except InputError:
                    self._blocks, self._begun = [], False  # no row acts without an episode
                    raise
                self._blocks.append(_Block(policy, task, mine[first : first + self.block]))

    def _context(self, task: int | None, shown: Demonstration | None) -> RolloutContext:
        tasks = None if task is None else np.full(self.block, task)
        sizes = self.suite.dimensions_of(task or 0)
        return RolloutContext(tasks, np.zeros(self.block, dtype=np.int64), 0, shown, dimensions=sizes)

    def _check(self, seen: NDArray[np.float32]) -> None:
        if seen.ndim != 2 or len(seen) != self._rows:
            raise InputError(
                f"observations of shape {list(seen.shape)}; expected [{self._rows}, {self.suite.observation_dim}], of "
                "as many environments as before. Call reset where there are others."
            )
        own = {self.suite.dimensions_of(block.task or 0)[0] for block in self._blocks}
        allowed = {self.suite.observation_dim} | (own if len(own) == 1 else set())
        if seen.shape[1] not in allowed:
            raise InputError(
                f"an observation has {seen.shape[1]} numbers; expected {' or '.join(map(str, sorted(allowed)))}, as in "
                "the data that the policy was trained on. The task's vector is no part of it: the policy adds its own."
            )
        if not np.isfinite(seen).all():
            raise InputError("the observation holds NaN or infinity; expected finite numbers. Mend the environment.")


@dataclass
class _Block:
    """Episodes of one task that are played side by side.

    Attributes:
        policy: Acts for them, and for nobody else meanwhile.
        task: Its position; None if it is hidden.
        rows: Which of all rows are here.
        places: Where in the block they are.
        steps: How many were played.
    """

    policy: TaskPolicy | PolicyPerGroup
    task: int | None
    rows: NDArray[np.intp]
    steps: int = 0

    def __post_init__(self) -> None:
        self.places = np.arange(len(self.rows))

    def act(self, seen: NDArray[np.float32], earned: NDArray[np.float32], suite: Suite, size: int) -> Any:
        """Actions `[n, A]` for the observations and rewards `[n]` of its rows, in a block of that size."""
        observations = np.zeros((size, suite.observation_dim), dtype=np.float32)
        rewards = np.zeros(size, dtype=np.float32)
        observations[self.places, : seen.shape[1]] = seen
        if self.steps:
            rewards[self.places] = earned
        self.steps += 1
        return self.policy.act(suite.observe(observations), rewards)[self.places]
