"""Suites side by side: one policy for tasks whose spaces, horizons and measures differ."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.datasets.episode import padded
from mtorl.envs.base import Env, Split, Step, Suite, build_suite
from mtorl.envs.checked import CheckedEnv
from mtorl.envs.gymnasium import chosen_tasks


class Union(Suite):
    """The tasks of several suites, for one policy.

    Observations are padded with zeros to those of the widest suite, and of actions every environment is given the
    numbers that it has a use for. Each task keeps its own suite's horizon, scripted expert, reward, success and goals.
    There are as many goals as in the suite with the fewest: the first of each suite.

    Args:
        suites: The suites.
        tasks: Use these tasks, in this order; all by default.
        goal_visible: Whether agents see the goals of those suites that can hide them; by default as each suite says.
        observation_dim: O, if it is to be larger than that of the widest suite.
        action_dim: A, likewise.
    """

    def __init__(
        self,
        suites: list[Suite],
        tasks: Sequence[str] | None = None,
        goal_visible: bool | None = None,
        observation_dim: int | None = None,
        action_dim: int | None = None,
    ) -> None:
        self.suites = [_as_told(it, goal_visible) for it in suites]
        self._homes = _homes(self.suites)
        self.task_names = chosen_tasks("Union", tuple(self._homes), tasks)
        self.observation_dim = _width("observation_dim", observation_dim, self.suites)
        self.action_dim = _width("action_dim", action_dim, self.suites)
        played = [self._home(task) for task in range(len(self.task_names))]
        self.horizon = max(suite.of(place).horizon for suite, place in played)
        self.goal_visible = all(suite.goal_visible for suite, _ in played)
        self.playable = all(suite.playable for suite, _ in played)
        self.returns_only = tuple(
            name for name, (suite, _) in zip(self.task_names, played, strict=True) if name in suite.returns_only
        )
        sizes = tuple(suite.dimensions_of(place) for suite, place in played)
        self.own_dimensions = sizes if {*sizes} != {(self.observation_dim, self.action_dim)} else None
        told = {suite.goal_visible for suite in self.suites if _GOAL in suite.arguments}
        self.arguments = {
            "suites": [suite.describe() for suite in self.suites],
            "tasks": list(self.task_names),
            "goal_visible": told.pop() if len(told) == 1 else None,
            "observation_dim": self.observation_dim,
            "action_dim": self.action_dim,
        }
        self._alone: dict[int, Union] = {}

    def make(self, task: int) -> "UnionEnv":
        """A new environment of that task."""
        suite, place = self._home(task)
        return UnionEnv(suite, place, self.observation_dim, self._goal)

    def goals(self, split: Split) -> range:
        """Training goals, and behind them held-out ones: as many as every suite has, also those without tasks here.

        Raises:
            InputError: Some of the tasks are known from data alone.
        """
        played = [*self._played(), *(it for it in self.suites if it.playable)]
        train, heldout = (min(len(it.goals(name)) for it in played) for name in _SPLITS)
        return range(train) if split == "train" else range(train, train + heldout)

    def expert(self, task: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """That of the task's suite."""
        suite, place = self._home(task)
        act, seen = suite.expert(place), suite.observation_dim
        return lambda observation: padded(act(observation[:seen]), self.action_dim)

    def hide_goal(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Hides the goal as the task's suite does.

        Raises:
            InputError: There are tasks of several suites: which one this is must be said with `of`.
        """
        suite = self._only()
        return padded(suite.hide_goal(observations[..., : suite.observation_dim]), observations.shape[-1])

    def hold(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        """Holds still as the task's suite does; raises as `hide_goal`."""
        suite = self._only()
        return padded(suite.hold(action[: suite.action_dim]), self.action_dim)

    def of(self, task: int) -> "Union":
        """The union of this task alone."""
        if task not in self._alone:
            widths = self.observation_dim, self.action_dim
            self._alone[task] = Union(self.suites, [self.task_names[task]], None, *widths)
        return self._alone[task]

    def return_bounds(self, task: int) -> tuple[float, float] | None:
        """Those of the task's suite."""
        suite, place = self._home(task)
        return suite.return_bounds(place)

    def unseen(self) -> "Union":
        """The unseen tasks of those suites that have some."""
        found, without = [], []
        for suite in self._played():
            try:
                found.append(suite.subset([name for name in suite.task_names if name in self.task_names]).unseen())
            except InputError as error:
                without.append(str(error))
        if not found:
            raise InputError(f"none of the suites has unseen tasks. {' '.join(without)}")
        return Union(found, None, None, self.observation_dim, self.action_dim)

    def versions(self) -> dict[str, str]:
        """Those of all suites; where two of them say different things, behind the name of the suite."""
        found: dict[str, str] = {}
        for suite in self._played():
            for name, version in suite.versions().items():
                other = found.get(name, version) != version
                found[f"{type(suite).__name__} {name}" if other else name] = version
        return found

    def _home(self, task: int) -> tuple[Suite, int]:
        """The suite of a task, and its position there."""
        return self._homes[self.task_names[task]]

    def _played(self) -> list[Suite]:
        """The suites of which there are tasks."""
        homes = [self._home(task)[0] for task in range(len(self.task_names))]
        return [it for it in self.suites if any(it is home for home in homes)]

    def _only(self) -> Suite:
        played = self._played()
        if len(played) > 1:
            raise InputError(
                f"what is asked of a union of {', '.join(type(it).__name__ for it in played)} is another thing in each "
                "of its suites; expected a task. Ask suite.of(task)."
            )
        return played[0].of(self._home(0)[1]) if len(self.task_names) == 1 else played[0]

    def _goal(self, suite: Suite, goal: int) -> int:
        """A suite's own index of one of our goals."""
        train = len(self.goals("train"))
        return suite.goals("train")[goal] if goal < train else suite.goals("heldout")[goal - train]


class UnionEnv(Env):
    """An environment of one suite in the spaces of a union.

    Args:
        suite: Its own suite.
        task: Position of its task there.
        observation_dim: O of the union.
        goal: From the suite and an index of the union's goals to the suite's own.
    """

    def __init__(self, suite: Suite, task: int, observation_dim: int, goal: Callable[[Suite, int], int]) -> None:
        self._suite, self._goal, self._size = suite, goal, observation_dim
        self._environment = suite.make(task)
        self._checked = CheckedEnv(self._environment, suite, task)

    def reset(self, goal: int) -> NDArray[np.float32]:
        """See `Env.reset`."""
        return padded(self._checked.reset(self._goal(self._suite, goal)), self._size)

    def step(self, action: NDArray[np.float32]) -> Step:
        """See `Env.step`; of the action it takes its own part."""
        observation, reward, success, terminated = self._checked.step(action[: self._suite.action_dim])
        return Step(padded(observation, self._size), reward, success, terminated)

    def render(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """See `Env.render`."""
        return self._environment.render(size)

    def close(self) -> None:
        """Frees the simulator."""
        self._environment.close()


_SPLITS: tuple[Split, Split] = ("train", "heldout")
_GOAL = "goal_visible"


def _as_told(suite: Any, goal_visible: bool | None) -> Suite:
    """A suite, or what describes one, with visible or hidden goals."""
    built = suite if isinstance(suite, Suite) else build_suite(suite)
    if goal_visible in (None, built.goal_visible) or _GOAL not in built.arguments:
        return built
    return built.changed(goal_visible=goal_visible)


def _homes(suites: Sequence[Suite]) -> dict[str, tuple[Suite, int]]:
    """Of every task its suite, and its position there."""
    if not suites:
        raise InputError("a union of no suites; expected at least one: --suite.suites '[{class_path: PointReach}]'.")
    homes: dict[str, tuple[Suite, int]] = {}
    for suite in suites:
        twice = [name for name in suite.task_names if name in homes]
        if twice:
            raise InputError(
                f"the tasks {twice} are in {type(homes[twice[0]][0]).__name__} and again in {type(suite).__name__}; "
                "expected every name once. Leave them out of one with its option `tasks`, or name them otherwise."
            )
        homes |= {name: (suite, place) for place, name in enumerate(suite.task_names)}
    return homes


def _width(name: str, given: int | None, suites: Sequence[Suite]) -> int:
    """The dimension of that name: the one that is given, or that of the widest suite."""
    least = max(int(getattr(suite, name)) for suite in suites)
    checks.at_least(least, **{name: given})
    return given or least
