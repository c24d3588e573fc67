"""Environments of gymnasium as a suite: MuJoCo locomotion, and any list of ids with equal spaces.

The package's time limits are taken off: whoever plays counts the steps. A goal is a seed of the reset, and therefore
determines the episode.
"""

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.datasets.d4rl_scores import d4rl_bounds
from mtorl.envs.base import Env, Split, Step, Suite, checked_action
from mtorl.envs.metaworld.simulator import load_mujoco
from mtorl.envs.rendering import Camera, draw, resized

GOALS = 50
ROBOTICS = "gymnasium_robotics"
"""The package whose ids gymnasium learns when it is imported."""


class Spaces(NamedTuple):
    """What an environment says of itself."""

    observation_dim: int
    action_dim: int
    horizon: int | None
    """Steps of its time limit, if it has one."""


class Gymnasium(Suite):
    """Environments of gymnasium, such as HalfCheetah-v5: locomotion without a success flag.

    Actions in [-1, 1] are mapped affinely onto those of the environment. Observations that are dictionaries are laid
    out flat. A goal's index is the seed of the reset. There are no scripted experts.

    Args:
        environments: Ids of environments with equal dimensions, or the id of each task by the task's name, where
            several tasks are of one environment. Ids of other packages are written as `package:id`.
        tasks: Use these tasks only, in this order.
        horizon: Steps of an episode; by default the time limit of the environments.
        success: Key of the steps' `info` that says whether the task is solved, such as `is_success`; without it tasks
            are judged by their returns.

    Source: Towers et al., "Gymnasium: A Standard Interface for Reinforcement Learning Environments", 2024.
    """

    def __init__(
        self,
        environments: list[str] | dict[str, str],
        tasks: Sequence[str] | None = None,
        horizon: int | None = None,
        success: str | None = None,
    ) -> None:
        self._ids = _named(environments)
        self.task_names = chosen_tasks(type(self).__name__, tuple(self._ids), tasks)
        spaces = {name: spaces_of(self._ids[name]) for name in self.task_names}
        self.observation_dim, self.action_dim = _common_dimensions(spaces)
        self.horizon = _common_horizon(spaces) if horizon is None else horizon
        checks.at_least(1, horizon=self.horizon)
        self.success, self.goal_visible = success, True
        self.returns_only = self.task_names if success is None else ()
        self.arguments = {
            "environments": self._ids,
            "tasks": list(self.task_names),
            "horizon": horizon,
            "success": success,
        }

    def make(self, task: int) -> "GymnasiumEnv":
        """A new environment of that task."""
        name = self.task_names[task]
        return GymnasiumEnv(name, make(self._ids[name]), self.success)

    def goals(self, split: Split) -> range:
        """Training goals 0 to 49, held-out goals 50 to 99: seeds of the reset."""
        return seeds(split)

    def expert(self, task: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Raises InputError: nobody wrote experts for these environments."""
        raise no_expert(type(self).__name__)

    def hide_goal(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same: no part of the observation is known to be a goal."""
        return observations.copy()

    def return_bounds(self, task: int) -> tuple[float, float] | None:
        """Those of D4RL, by the environment's name. Its returns were measured in another simulator."""
        return d4rl_bounds(self._ids[self.task_names[task]].rsplit(":", 1)[-1].rsplit("-v", 1)[0])

    def versions(self) -> dict[str, str]:
        """Versions of gymnasium and mujoco, and of gymnasium-robotics where that is used."""
        return versions(self._ids[name] for name in self.task_names)


class GymnasiumEnv(Env):
    """One task.

    Args:
        name: Of the task.
        environment: Without a time limit.
        success: Key of the steps' `info` that says whether the task is solved.
    """

    def __init__(self, name: str, environment: Any, success: str | None = None) -> None:
        self.name, self.environment, self._success = name, environment, success
        self._low, self._high = environment.action_space.low, environment.action_space.high
        self._unit = bool((self._low == -1).all() and (self._high == 1).all())

    def reset(self, goal: int) -> NDArray[np.float32]:
        """Starts from the state that is drawn with the goal's index as seed."""
        observation, _ = self.environment.reset(seed=int(goal))
        return self._observed(observation)

    def step(self, action: NDArray[np.float32]) -> Step:
        """One step with the action mapped onto those of the environment."""
        action = checked_action(action, self.name)
        own = action if self._unit else self._mapped(action)
        observation, reward, terminated, truncated, info = self.environment.step(own)
        if truncated:
            raise InputError(
                f"{self.name}: the environment ends an episode by itself without a final state; expected one whose "
                "only limit is max_episode_steps, which is taken off."
            )
        reward = self._reward(own, float(reward), info)
        return Step(self._observed(observation), reward, self._solved(info), bool(terminated))

    def render(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Of MuJoCo's worlds from the camera that the package uses; of others whatever they draw."""
        raw = self.environment.unwrapped
        if hasattr(raw, "model") and hasattr(raw, "data"):
            return draw(raw.model, raw.data, size, _camera_of(raw))
        raw.render_mode = "rgb_array"  # none was asked for when it was made: pictures are made for films alone
        try:
            found = raw.render()
        except Exception as error:
            raise InputError(f"{self.name} cannot be drawn: {error}.") from error
        if not isinstance(found, np.ndarray) or found.ndim != 3:
            raise InputError(f"{self.name} cannot be drawn: it gives no picture in the mode rgb_array.")
        return resized(found, size)

    def close(self) -> None:
        """Frees the simulator."""
        self.environment.close()

    def _mapped(self, action: NDArray[np.float32]) -> NDArray[Any]:
        """From [-1, 1] onto the environment's own bounds, which rounding must not leave."""
        share = (action.astype(np.float64) + 1) / 2
        own = self._low + share * (self._high.astype(np.float64) - self._low)
        return np.clip(own.astype(self._low.dtype), self._low, self._high)

    def _observed(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        return observation.astype(np.float32)

    def _reward(self, action: NDArray[np.floating], reward: float, info: Mapping[str, Any]) -> float:
        """The reward of a step; families of tasks have their own."""
        return reward

    def _solved(self, info: Mapping[str, Any]) -> bool:
        if self._success is None:
            return False
        if self._success not in info:
            raise InputError(
                f"{self.name}: a step's info has no {self._success!r}; it has {sorted(info)}. Name another key of it "
                "with --suite.success, or leave that out."
            )
        return bool(info[self._success])


def make(environment: str, **options: Any) -> Any:
    """A gymnasium environment without its time limit; dictionaries of observations are laid out flat.

    Args:
        environment: Its id.
        options: Of the environment.

    Raises:
        InputError: There is none of that id.
    """
    import gymnasium

    load_mujoco()
    try:
        if importlib.util.find_spec(ROBOTICS):
            importlib.import_module(ROBOTICS)
        made = gymnasium.make(environment, max_episode_steps=-1, disable_env_checker=True, **options)
    except (gymnasium.error.Error, ImportError) as error:
        raise InputError(
            f"gymnasium has no environment {environment!r}: {error} Expected an id such as HalfCheetah-v5; ids of "
            "other packages, which must be installed, are written as package:id."
        ) from None
    if isinstance(made.observation_space, gymnasium.spaces.Dict):
        made = gymnasium.wrappers.FlattenObservation(made)
    return made


def _camera_of(raw: Any) -> Camera:
    """The camera of gymnasium's own pictures: the one that follows the torso, or one that stands where it says."""
    renderer = getattr(raw, "mujoco_renderer", None)
    names = [raw.model.camera(place).name for place in range(raw.model.ncam)]
    if "track" in names:
        return Camera(name="track")
    said = getattr(renderer, "default_cam_config", None) or {}
    return Camera(**{name: said[name] for name in ("azimuth", "elevation", "distance", "lookat") if name in said})


@cache
def spaces_of(environment: str) -> Spaces:
    """What the environment of that id says of itself.

    Raises:
        InputError: Its observations are no vector, or its actions no bounded one.
    """
    import gymnasium

    made = make(environment)
    seen, acts = made.observation_space, made.action_space
    made.close()
    box = gymnasium.spaces.Box
    if not (isinstance(seen, box) and len(seen.shape) == 1):
        raise InputError(
            f"{environment} has observations {seen}; expected vectors of numbers. Images and other kinds are not read."
        )
    if not (isinstance(acts, box) and len(acts.shape) == 1 and acts.is_bounded()):
        raise InputError(f"{environment} has actions {acts}; expected bounded vectors of numbers.")
    return Spaces(int(seen.shape[0]), int(acts.shape[0]), gymnasium.spec(environment).max_episode_steps)


def seeds(split: Split) -> range:
    """Training goals 0 to 49, held-out goals 50 to 99."""
    return range(GOALS) if split == "train" else range(GOALS, 2 * GOALS)


def no_expert(suite: str) -> InputError:
    """Says what can be done without scripted experts."""
    return InputError(
        f"{suite} has no scripted experts; expected data of other policies: `mtorl collect --recipe random`, or import "
        "recorded episodes with `mtorl import`."
    )


def versions(environments: Iterable[str]) -> dict[str, str]:
    """Versions of the packages behind these ids."""
    import gymnasium

    packages = ["gymnasium", "mujoco"]
    if any(str(gymnasium.spec(it).entry_point).startswith(ROBOTICS) for it in environments):
        packages.append("gymnasium-robotics")
    return {name: importlib.metadata.version(name) for name in packages}


def chosen_tasks(suite: str, every: tuple[str, ...], tasks: Sequence[str] | None) -> tuple[str, ...]:
    """The tasks that were asked for, in this order; all by default.

    Raises:
        InputError: One is unknown or listed twice, or there is none.
    """
    if tasks is None:
        return every
    tasks = [tasks] if isinstance(tasks, str) else tasks
    unknown = [name for name in tasks if name not in every]
    if unknown:
        raise InputError(f"unknown tasks {unknown}; {suite} has {list(every)}.")
    if not tasks:
        raise InputError(f"the list of tasks is empty; expected some of {list(every)}.")
    if len(set(tasks)) < len(tasks):
        raise InputError(f"a task is listed twice in {list(tasks)}; expected each once.")
    return tuple(tasks)


def _named(environments: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """The id of each task, by its name."""
    if not environments:
        raise InputError("no environment was named; expected ids such as --suite.environments '[HalfCheetah-v5]'.")
    if isinstance(environments, Mapping):
        return dict(environments)
    ids = [environments] if isinstance(environments, str) else list(environments)
    if len(set(ids)) < len(ids):
        raise InputError(
            f"an environment is listed twice in {ids}; expected each once, or names of tasks: "
            "'{fast: HalfCheetah-v5, slow: HalfCheetah-v5}'."
        )
    return {it: it for it in ids}


def _common_dimensions(spaces: Mapping[str, Spaces]) -> tuple[int, int]:
    """Observation and action dimension, if all tasks have the same."""
    found = {(it.observation_dim, it.action_dim) for it in spaces.values()}
    if len(found) > 1:
        each = ", ".join(
            f"{name} observations of {it.observation_dim} numbers and actions of {it.action_dim}"
            for name, it in spaces.items()
        )
        raise InputError(
            f"the environments differ in their dimensions: {each}. Expected equal ones; the suite Union joins suites "
            "of different dimensions."
        )
    return found.pop()


def _common_horizon(spaces: Mapping[str, Spaces]) -> int:
    """The time limit, if all tasks have the same."""
    limits = {name: it.horizon for name, it in spaces.items()}
    found = {*limits.values()}
    if len(found) > 1 or None in found:
        raise InputError(f"the time limits of the environments are {limits}; say one for all with --suite.horizon.")
    return int(found.pop() or 0)
