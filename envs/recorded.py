"""Tasks of which there is nothing but data."""

from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks
from mtorl.envs.base import Env, Split, Suite


class Recorded(Suite):
    """Tasks that are known from data alone: policies can be trained on them, and not be played.

    Args:
        tasks: Their names.
        observation_dim: O.
        action_dim: A.
        horizon: Steps of the longest episode that would be played.
        success: Whether the data know success.
    """

    playable = False

    def __init__(
        self, tasks: Sequence[str], observation_dim: int, action_dim: int, horizon: int = 1000, success: bool = False
    ) -> None:
        checks.at_least(1, observation_dim=observation_dim, action_dim=action_dim, horizon=horizon)
        self.task_names = tuple(tasks)
        self.observation_dim, self.action_dim, self.horizon = observation_dim, action_dim, horizon
        self.goal_visible = True
        self.returns_only = () if success else self.task_names
        self.arguments = {
            "tasks": list(tasks),
            "observation_dim": observation_dim,
            "action_dim": action_dim,
            "horizon": horizon,
            "success": success,
        }

    def make(self, task: int) -> Env:
        """Raises InputError: there is no environment."""
        self._refuse()

    def goals(self, split: Split) -> range:
        """Raises InputError: there is no environment."""
        self._refuse()

    def expert(self, task: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
        """Raises InputError: there is no environment."""
        self._refuse()

    def hide_goal(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same: which part is a goal is not known."""
        return observations.copy()

    def versions(self) -> dict[str, str]:
        """Nothing is played."""
        return {}

    def _refuse(self) -> NoReturn:
        raise InputError(
            f"{', '.join(self.task_names)}: known from data alone; expected tasks that can be played. Import the data "
            "again with --suite and the suite that they belong to, or measure the error of actions on held-out data "
            "(`mtorl evaluate RUN --recorded`)."
        )
