"""A suite with other dimensions, another horizon and no success flag: points in space."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mtorl.envs.base import Env, Split, Step, Suite, checked_action

NAMES = ("up", "down")


class SpaceReach(Suite):
    """A point in space that is to come near a marker (up), or its mirror image (down), and is judged by its return."""

    def __init__(self, tasks: Sequence[str] | None = None, goal_visible: bool = True) -> None:
        self.task_names = tuple(tasks or NAMES)
        self.observation_dim, self.action_dim, self.horizon, self.goal_visible = 6, 3, 12, goal_visible
        self.returns_only = self.task_names
        self.arguments = {"tasks": list(self.task_names), "goal_visible": goal_visible}

    def make(self, task: int) -> "SpaceEnv":
        return SpaceEnv(self.task_names[task])

    def goals(self, split: Split) -> range:
        return range(100, 110) if split == "train" else range(200, 220)

    def expert(self, task: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        sign = 1 if self.task_names[task] == "up" else -1
        return lambda seen: np.clip((sign * seen[3:] - seen[:3]) / 0.1, -1, 1).astype(np.float32)

    def hide_goal(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        hidden = observations.copy()
        hidden[..., 3:] = 0
        return hidden

    def hold(self, action: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.array([0, 0, action[2]], np.float32)

    def return_bounds(self, task: int) -> tuple[float, float]:
        return -20.0, float(task)

    def versions(self) -> dict[str, str]:
        return {"space": "1", "point_reach": "of space"}


class SpaceEnv(Env):
    def __init__(self, name: str) -> None:
        self.name = name

    def reset(self, goal: int) -> NDArray[np.float32]:
        draw = np.random.default_rng([*self.name.encode(), goal])
        self.position, self.marker = draw.uniform(-0.1, 0.1, 3), draw.uniform(-1, 1, 3)
        return self._seen()

    def step(self, action: NDArray[np.float32]) -> Step:
        self.position = self.position + 0.1 * checked_action(action, self.name)
        sign = 1 if self.name == "up" else -1
        distance = float(np.linalg.norm(sign * self.marker - self.position))
        return Step(self._seen(), -distance, False, False)

    def _seen(self) -> NDArray[np.float32]:
        return np.concatenate([self.position, self.marker]).astype(np.float32)
