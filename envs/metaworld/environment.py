"""One task of Meta-World.

All environments of one task share one MuJoCo model (25 MB): the two fields that an episode's goal changes in it are
swapped in before a step.
"""

import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.envs.base import Env, Step, checked_action
from mtorl.envs.metaworld.fast import fast_class
from mtorl.envs.metaworld.goals import stored_goals
from mtorl.envs.metaworld.simulator import stock_class
from mtorl.envs.rendering import Camera, draw

_CAMERA = Camera(azimuth=142, elevation=-32, distance=1.3, lookat=(0, 0.6, 0.12))


class MetaWorldEnv(Env):
    """One task on the package's raw environment class.

    Args:
        name: Name of the task.
        shared: The task's MuJoCo model, shared by all its environments.
    """

    def __init__(self, name: str, shared: "SharedModel") -> None:
        self.name = name
        self._goals = stored_goals()[name]
        self._shared = shared
        self.raw = shared.build()
        """The package's environment, for rendering and inspection."""
        self._fields = shared.snapshot()

    def reset(self, goal: int) -> NDArray[np.float32]:
        """Sets the goal and starts an episode."""
        from metaworld.types import Task

        if not 0 <= goal < len(self._goals):
            raise InputError(f"{self.name} has goals 0 to {len(self._goals) - 1}; found {goal}.")
        # The package takes goals as pickles. This one is made here and now; none is ever read from a file.
        content = {"env_cls": stock_class(self.name), "rand_vec": self._goals[goal], "partially_observable": False}
        self._shared.lend(self, self._fields)
        self.raw.set_task(Task(env_name=self.name, data=pickle.dumps(content)))
        observation, _ = self.raw.reset()
        _ = self.raw.sawyer_observation_space  # made anew for every kind of goal: now, rather than at the first step
        self._fields = self._shared.snapshot()
        return observation.astype(np.float32)

    def step(self, action: NDArray[np.float32]) -> Step:
        """One control step of 12.5 ms. The reward is the package's dense one, 0 to 10."""
        self._shared.lend(self, self._fields)
        observation, reward, _, _, info = self.raw.step(checked_action(action, self.name))
        return Step(observation.astype(np.float32), float(reward), bool(info["success"]), False)

    def render(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """From the robot's left, over the table. The package's own cameras at the corners stand on their heads."""
        self._shared.lend(self, self._fields)
        return draw(self.raw.model, self.raw.data, size, _CAMERA)

    def close(self) -> None:
        """Frees the renderer, if there is one."""
        self.raw.close()


class SharedModel:
    """The MuJoCo model of one task. Resets move bodies and sites in it; nothing else of it ever changes."""

    _FIELDS = ("body_pos", "site_pos")

    def __init__(self, name: str, fast: bool) -> None:
        self._model: Any = None
        self._arrays: tuple[NDArray[np.float64], ...] = ()
        self._pristine: tuple[NDArray[np.float64], ...] = ()
        self._borrower: object = None
        self._class = stock_class(name)
        if fast:
            changes = {"_initialize_simulation": lambda environment: self._load(environment)}
            self._class = fast_class(self._class, changes)

    def build(self) -> Any:
        """A new environment of the package on this model."""
        self._borrower = None
        if self._model is not None:
            self._write(self._pristine)
        environment = self._class()
        self._know(environment.model)
        return environment

    def snapshot(self) -> tuple[NDArray[np.float64], ...]:
        """The fields as the current borrower left them."""
        return tuple(array.copy() for array in self._arrays)

    def lend(self, borrower: object, fields: tuple[NDArray[np.float64], ...]) -> None:
        """Puts the borrower's fields into the model, unless they are in it."""
        if self._borrower is not borrower:
            self._write(fields)
            self._borrower = borrower

    def _write(self, fields: tuple[NDArray[np.float64], ...]) -> None:
        for array, values in zip(self._arrays, fields, strict=True):
            array[:] = values

    def _know(self, model: Any) -> None:
        self._model, self._arrays = model, tuple(getattr(model, name) for name in self._FIELDS)

    def _load(self, environment: Any) -> tuple[Any, Any]:
        import mujoco

        if self._model is None:
            model = mujoco.MjModel.from_xml_path(environment.fullpath)
            model.vis.global_.offwidth = max(model.vis.global_.offwidth, environment.width)
            model.vis.global_.offheight = max(model.vis.global_.offheight, environment.height)
            self._know(model)
            self._pristine = self.snapshot()
        return self._model, mujoco.MjData(self._model)
