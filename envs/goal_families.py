"""Families of locomotion tasks that differ in what they reward: the few-shot tasks of the literature on prompts.

| suite | tasks | reward of a step | unseen tasks |
|---|---|---|---|
| `CheetahVel` | 40 target velocities v*, 0.075 to 3 | -abs(v - v*) - 0.05 a^2 | 5 |
| `CheetahDir` | forward, backward | s v - 0.05 a^2 with s = 1 or -1 | none |
| `AntDir` | 50 directions d of the plane | d.v - 0.5 a^2 - 0.0005 c^2 + 1 | 5 |

v is the velocity of the body, a the action, c the clipped contact forces. Episodes take 200 steps; an ant that falls or
jumps too high ends its own. Observations do not say what is rewarded: policies are told the task, or shown an episode.

Source: Xu et al., "Prompting Decision Transformer for Few-Shot Policy Generalization", 2022, section 5, and its
published configuration for horizon, velocities and the unseen tasks; the tasks are those of Finn et al.,
"Model-Agnostic Meta-Learning", 2017, Rothfuss et al., "ProMP", 2019, and Rakelly et al., "PEARL", 2019.

Deviation 1: HalfCheetah-v5 and Ant-v5 of gymnasium on MuJoCo 3, where the literature has mujoco-py and MuJoCo 2:
episodes are not the same step by step, and returns are not comparable to the digit.
Deviation 2: contact forces are those that MuJoCo computes; with mujoco-py 2 they were zero, and so was their cost.
Deviation 3: the directions of `AntDir` are 7.2 degrees apart; the literature drew them at random, without a seed. They
can be given.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.envs.base import Split, Suite
from mtorl.envs.gymnasium import GymnasiumEnv, chosen_tasks, make, no_expert, seeds, versions

HORIZON = 200
VELOCITIES = tuple(round(0.075 * number, 3) for number in range(1, 41))
DIRECTIONS = 50


class GoalFamily(Suite, ABC):
    """Tasks of one body that differ in their reward alone.

    Attributes:
        environment: Id of the body at gymnasium.
        held_back: Positions of the tasks that the literature keeps for testing.
    """

    environment: ClassVar[str]
    held_back: ClassVar[tuple[int, ...]] = ()

    def __init__(self, every: tuple[str, ...], tasks: Sequence[str] | None, all_tasks: bool, horizon: int) -> None:
        checks.at_least(1, horizon=horizon)
        self.every = every
        known = tuple(name for place, name in enumerate(every) if all_tasks or place not in self.held_back)
        self.task_names = known if tasks is None else chosen_tasks(type(self).__name__, every, tasks)
        self.horizon, self.goal_visible, self.returns_only = horizon, True, self.task_names
        self.arguments = {"tasks": list(self.task_names), "horizon": horizon}

    @abstractmethod
    def make(self, task: int) -> GymnasiumEnv:
        """A new environment of that task."""

    def goals(self, split: Split) -> range:
        """Training goals 0 to 49, held-out goals 50 to 99: seeds of the reset."""
        return seeds(split)

    def expert(self, task: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Raises InputError: nobody wrote experts for these tasks."""
        raise no_expert(type(self).__name__)

    def hide_goal(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same: what is rewarded is not part of the observation."""
        return observations.copy()

    def unseen(self) -> "GoalFamily":
        """The tasks that the literature keeps for testing.

        Raises:
            InputError: There are none, or some of them are in this suite.
        """
        names = [self.every[place] for place in self.held_back]
        if not names:
            raise InputError(
                f"{type(self).__name__} has no unseen tasks: the literature tests on the ones it trains on."
            )
        known = [name for name in names if name in self.task_names]
        if known:
            raise InputError(
                f"{', '.join(known)} are among the tasks that are to be unseen; expected a policy trained on others: "
                f"leave --suite.all_tasks out, and {', '.join(names)} off the list of tasks."
            )
        return type(self)(**{**self.arguments, "tasks": names})

    def versions(self) -> dict[str, str]:
        """Versions of gymnasium and mujoco."""
        return versions([self.environment])


class CheetahVel(GoalFamily):
    """A cheetah that is to run at one of 40 velocities.

    The tasks are `velocity-0.075` to `velocity-3.000` in meters per second. Observations are positions and velocities
    of the joints and the position of the torso.

    Args:
        tasks: Use these tasks, in this order; by default the 35 that the literature trains on.
        all_tasks: Use all 40, also those that are kept for testing.
        horizon: Steps of an episode.

    Source: Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", 2017; tasks and split are
    those of Xu et al. (2022).
    """

    environment = "HalfCheetah-v5"
    held_back = (2, 7, 15, 23, 26)

    def __init__(self, tasks: Sequence[str] | None = None, all_tasks: bool = False, horizon: int = HORIZON) -> None:
        self._velocities = {f"velocity-{velocity:.3f}": velocity for velocity in VELOCITIES}
        super().__init__(tuple(self._velocities), tasks, all_tasks, horizon)
        self.observation_dim, self.action_dim = 20, 6

    def make(self, task: int) -> "CheetahEnv":
        """A new environment of that task."""
        name = self.task_names[task]
        target = self._velocities[name]
        return CheetahEnv(name, lambda velocity: -abs(velocity - target))


class CheetahDir(GoalFamily):
    """A cheetah that is to run forward, or backward, as fast as it can.

    Observations are those of `CheetahVel`.

    Args:
        tasks: Use these tasks, in this order; `forward` and `backward` by default.
        horizon: Steps of an episode.

    Source: Finn et al., "Model-Agnostic Meta-Learning for Fast Adaptation of Deep Networks", 2017.
    """

    environment = "HalfCheetah-v5"

    def __init__(self, tasks: Sequence[str] | None = None, horizon: int = HORIZON) -> None:
        super().__init__(("forward", "backward"), tasks, True, horizon)
        self.observation_dim, self.action_dim = 20, 6

    def make(self, task: int) -> "CheetahEnv":
        """A new environment of that task."""
        name = self.task_names[task]
        sign = 1 if name == "forward" else -1
        return CheetahEnv(name, lambda velocity: sign * velocity)


class AntDir(GoalFamily):
    """An ant that is to run in one of 50 directions.

    The tasks are `direction-00` to `direction-49`, by default evenly around the circle, the first along the x axis.
    Observations are positions and velocities of the joints, without the place in the plane and without contact forces.

    Args:
        tasks: Use these tasks, in this order; by default the 45 that the literature trains on.
        all_tasks: Use all 50, also those that are kept for testing.
        horizon: Steps of an episode.
        directions: The 50 directions in radians, for data that were recorded with others.

    Source: Rakelly et al., "Efficient Off-Policy Meta-Reinforcement Learning via Probabilistic Context Variables",
    2019; number and split of the tasks are those of Xu et al. (2022).
    """

    environment = "Ant-v5"
    held_back = (6, 17, 23, 30, 41)

    def __init__(
        self,
        tasks: Sequence[str] | None = None,
        all_tasks: bool = False,
        horizon: int = HORIZON,
        directions: Sequence[float] | None = None,
    ) -> None:
        if directions is not None and len(directions) != DIRECTIONS:
            raise InputError(f"directions are {len(directions)} numbers; expected {DIRECTIONS}, in radians.")
        given = None if directions is None else [float(it) for it in directions]
        for direction in given or ():
            checks.within("(-inf, inf)", directions=direction)
        every = tuple(f"direction-{number:02d}" for number in range(DIRECTIONS))
        super().__init__(every, tasks, all_tasks, horizon)
        self.arguments["directions"] = given
        self._directions = given or [2 * np.pi * number / DIRECTIONS for number in range(DIRECTIONS)]  # Deviation 3
        self.observation_dim, self.action_dim = 27, 8

    def make(self, task: int) -> "AntEnv":
        """A new environment of that task."""
        name = self.task_names[task]
        return AntEnv(name, self._directions[self.every.index(name)])


class CheetahEnv(GymnasiumEnv):
    """A cheetah with a reward of its own.

    Args:
        name: Of the task.
        progress: Reward of a velocity in meters per second.
    """

    def __init__(self, name: str, progress: Callable[[float], float]) -> None:
        super().__init__(name, make(CheetahVel.environment))  # Deviation 1
        self._progress = progress
        self._torso = self.environment.unwrapped.data.body("torso").xpos

    def _observed(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        return np.concatenate([observation, self._torso]).astype(np.float32)

    def _reward(self, action: NDArray[np.floating], reward: float, info: Mapping[str, Any]) -> float:
        return self._progress(float(info["x_velocity"])) - 0.05 * float(np.square(action).sum())


class AntEnv(GymnasiumEnv):
    """An ant that is rewarded for its velocity in one direction.

    Args:
        name: Of the task.
        direction: In radians from the x axis.
    """

    def __init__(self, name: str, direction: float) -> None:
        super().__init__(name, make(AntDir.environment, include_cfrc_ext_in_observation=False))
        self._direction = np.array([np.cos(direction), np.sin(direction)])

    def _reward(self, action: NDArray[np.floating], reward: float, info: Mapping[str, Any]) -> float:
        velocity = np.array([info["x_velocity"], info["y_velocity"]])
        others = reward - float(info["reward_forward"])  # Deviation 2: the costs and the bonus for being upright
        return float(velocity @ self._direction) + others
