"""A tiny suite in numpy: points that move to, or away from, a marker. It needs no simulator and runs in seconds."""

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.envs.base import Env, Split, Step, Suite, checked_action

SPEED = 0.1
RADIUS = 0.1
GOALS = 50
FAMILY = 4
"""Tasks of each family, if nobody says."""
NAME = re.compile(r"(towards|away)-(0|[1-9]\d*)")


class PointReach(Suite):
    """A point in the plane and a marker. Tasks `towards-i` reach the marker, tasks `away-i` its mirror image.

    The two families see the same observations and need opposite actions, so a policy that is not told its task
    cannot solve both; within a family tasks differ by a small rotation of the target.

    Args:
        tasks: Names of the tasks, `towards-i` or `away-i` with any number; or how many there are, half of each family.
            Four of each family by default.
        horizon: Steps of an episode.
        goal_visible: Whether agents see the marker.
    """

    def __init__(self, tasks: int | Sequence[str] | None = None, horizon: int = 50, goal_visible: bool = True) -> None:
        tasks = _names(2 * FAMILY if tasks is None else tasks)
        unknown = [name for name in tasks if not NAME.fullmatch(name)]
        if unknown:
            raise InputError(f"unknown tasks {unknown}; PointReach has towards-0, away-0, towards-1 and so on.")
        if not tasks:
            raise InputError("the list of tasks is empty; expected some of towards-0, away-0, towards-1 and so on.")
        if len(set(tasks)) < len(tasks):
            raise InputError(f"a task is listed twice in {list(tasks)}; expected each once.")
        checks.at_least(1, horizon=horizon)
        self.task_names = tasks
        self.observation_dim, self.action_dim, self.horizon, self.goal_visible = 4, 2, horizon, goal_visible
        self.arguments = {"tasks": list(self.task_names), "horizon": horizon, "goal_visible": goal_visible}

    def make(self, task: int) -> "PointEnv":
        """A new environment of that task."""
        return PointEnv(self.task_names[task])

    def goals(self, split: Split) -> range:
        """Training goals 0 to 49, held-out goals 50 to 99."""
        return range(GOALS) if split == "train" else range(GOALS, 2 * GOALS)

    def expert(self, task: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Goes straight to the target."""
        name = self.task_names[task]

        def act(observation: NDArray[np.float32]) -> NDArray[np.float32]:
            step = (target(name, observation[2:]) - observation[:2]) / SPEED
            return np.clip(step, -1, 1).astype(np.float32)

        return act

    def hide_goal(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Sets the marker's coordinates to zero."""
        hidden = observations.copy()
        hidden[..., 2:] = 0
        return hidden

    def unseen(self) -> "PointReach":
        """All tasks that are not in this suite."""
        every = PointReach().task_names
        others = [name for name in every if name not in self.task_names]
        if not others:
            raise InputError("PointReach has no unseen tasks: all of them are in the suite. Train on some only.")
        return PointReach(others, self.horizon, self.goal_visible)

    def versions(self) -> dict[str, str]:
        """The suite has no simulator."""
        return {"point_reach": "1"}


def _names(tasks: int | Sequence[str]) -> tuple[str, ...]:
    """Names of tasks; a number, also as a command line has it, stands for the first ones of each family."""
    names = (tasks,) if isinstance(tasks, str) else () if isinstance(tasks, int) else tuple(tasks)
    if not isinstance(tasks, int) and not (len(names) == 1 and names[0].isdecimal()):
        return names
    count = tasks if isinstance(tasks, int) else int(names[0])
    checks.at_least(1, tasks=count)
    families = {"towards": count - count // 2, "away": count // 2}
    return tuple(f"{family}-{number}" for family, mine in families.items() for number in range(mine))


class PointEnv(Env):
    """One task of the suite. Observation: position and marker, each x and y in about [-2, 2].

    Args:
        name: Name of the task.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.position = np.zeros(2)
        self.marker = np.zeros(2)

    def reset(self, goal: int) -> NDArray[np.float32]:
        """Start and marker are a function of the task's name and the goal's index alone."""
        draw = np.random.default_rng([*self.name.encode(), goal])
        angle = draw.uniform(0, 2 * np.pi)
        self.marker = draw.uniform(0.7, 1.0) * np.array([np.cos(angle), np.sin(angle)])
        self.position = draw.uniform(-0.1, 0.1, 2)
        return self._observe()

    def step(self, action: NDArray[np.float32]) -> Step:
        """Moves by at most 0.1 per axis; the reward is 1 at the target and falls with the distance."""
        self.position = self.position + SPEED * checked_action(action, self.name)
        distance = float(np.linalg.norm(self.position - target(self.name, self.marker)))
        return Step(self._observe(), 1.0 / (1.0 + 10.0 * distance), distance < RADIUS, False)

    def render(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The plane from -1.5 to 1.5: the point in blue, the marker in grey, where it is to go as a green circle."""
        from PIL import Image, ImageDraw

        height, width = size
        scale = 2 * min(size) / 3.0  # drawn twice as large, for smooth edges
        picture = Image.new("RGB", (2 * width, 2 * height), "white")
        pen = ImageDraw.Draw(picture)
        middle = np.array([width, height])
        for place, radius, look in (
            (self.marker, 0.04, {"fill": "#888888"}),
            (target(self.name, self.marker), RADIUS, {"outline": "#009e73", "width": max(2, int(scale / 60))}),
            (self.position, 0.05, {"fill": "#0072b2"}),
        ):
            x, y = middle + scale * place * (1, -1)
            pen.ellipse((x - radius * scale, y - radius * scale, x + radius * scale, y + radius * scale), **look)
        return np.asarray(picture.resize((width, height), Image.Resampling.BOX))

    def _observe(self) -> NDArray[np.float32]:
        return np.concatenate([self.position, self.marker]).astype(np.float32)


def target(name: str, marker: NDArray[np.floating]) -> NDArray[np.floating]:
    """Where the task wants the point to be: the marker or its mirror image, rotated by the task's own small angle."""
    family, number = name.split("-")
    angle = 0.2 * int(number)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (1.0 if family == "towards" else -1.0) * (rotation @ marker)
