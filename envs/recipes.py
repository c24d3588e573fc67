"""How recipes disturb a scripted expert.

| recipe | actions |
|---|---|
| `expert` | expert + Gaussian noise 0.1 |
| `mixed` | expert + noise 0.1 and 0.3 in turn |
| `medium` | expert + noise 0.5 |
| `replay` | an annealed stream that stands in for the replay buffer of an online learner, see below |
| `replay-half` | the first half of a replay stream twice as long: the sub-optimal split |
| `random` | uniform random actions |

In a replay stream progress p runs from 0 to 1 over the first 60 % of the episodes and stays there. With probability
0.8 (1-p)^1.5 a block of 10 steps takes one uniform random action, else the expert's; noise of standard deviation
0.6 (1-p) + 0.1 is added to both. It has no learned exploration: that is its difference from a real replay buffer.
"""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.envs.base import Suite

Recipe = Literal["expert", "mixed", "medium", "replay", "replay-half", "random"]


class Behaviour(NamedTuple):
    """How the actions of one episode are disturbed."""

    noise: float
    """Standard deviation of the Gaussian noise on every action dimension."""
    random: float
    """Probability that a block of steps takes one uniform random action."""
    block: int = 10
    """Steps for which one random action is kept."""


def behaviour(recipe: Recipe, number: int, episodes: int) -> Behaviour:
    """The disturbance of one episode.

    Args:
        recipe: Name of the recipe.
        number: Number of the episode within its task, from 0.
        episodes: Episodes of that task in the data set.
    """
    match recipe:
        case "expert":
            return Behaviour(0.1, 0.0)
        case "mixed":
            return Behaviour(0.3 if number % 2 else 0.1, 0.0)
        case "medium":
            return Behaviour(0.5, 0.0)
        case "random":
            return Behaviour(0.0, 1.0, block=1)
        case "replay" | "replay-half":
            stream = episodes if recipe == "replay" else 2 * episodes
            progress = min(1.0, number / max(0.6 * (stream - 1), 1e-9))
            return Behaviour(0.6 * (1 - progress) + 0.1, 0.8 * (1 - progress) ** 1.5)
    raise InputError(f"unknown recipe {recipe!r}; expected one of {', '.join(get_args(Recipe))}.")


class Disturbed:
    """The expert of one task, disturbed as the recipe says, holding still after success.

    Args:
        suite: The suite.
        task: Position of the task.
        kind: The disturbance.
        draw: The episode's random stream.
    """

    def __init__(self, suite: Suite, task: int, kind: Behaviour, draw: np.random.Generator) -> None:
        self._suite, self._kind, self._draw = suite.of(task), kind, draw
        self._size = suite.dimensions_of(task)[1]
        self._expert = None if kind.random == 1 else suite.expert(task)
        self._detour: NDArray[np.float64] | None = None

    def act(self, step: int, full: NDArray[np.float32], done: bool, last: NDArray[np.float32]) -> NDArray[Any]:
        """The next action; `done`: hold still. The draws depend on the step alone."""
        if step % self._kind.block == 0:
            self._detour = self._draw.uniform(-1, 1, self._size) if self._draw.random() < self._kind.random else None
        noise = self._kind.noise * self._padded(self._draw.standard_normal(self._size))
        if done:
            return self._suite.hold(last)
        if self._detour is not None:
            return self._padded(self._detour) + noise
        assert self._expert is not None
        return self._expert(full) + noise

    def _padded(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """With zeros where the task has no action dimensions."""
        missing = self._suite.action_dim - self._size
        return np.pad(values, (0, missing)) if missing else values
