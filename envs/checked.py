"""The door for everything that suites and environments return: checked, and copied into arrays of its own.

Users write them, and a wrong one is told by the name of its task, at its first step, whoever plays it.
"""

import json
import math
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.envs.base import Env, Suite, build_again

_SINGLE = np.dtype(np.float32)
_LARGEST = float(np.finfo(np.float32).max)
"""Rewards are stored in single precision."""


class CheckedEnv:
    """An environment of a suite, behind the door. What costs more than a microsecond is looked at only if it is odd.

    Args:
        environment: The environment. It may return one array again and again.
        suite: Its suite.
        task: Position of its task.
    """

    def __init__(self, environment: Env, suite: Suite, task: int) -> None:
        self._environment = environment
        self._shape = (suite.observation_dim,)
        self._small = np.full(self._shape, 1e-10, np.float32)  # no finite observation's product with it overflows
        self._task = suite.task_names[task]
        self._goal = self._steps = 0

    def reset(self, goal: int) -> NDArray[np.float32]:
        """See `Env.reset`.

        Raises:
            InputError: The observation is none.
        """
        self._goal, self._steps = goal, 0
        try:
            observation = self._environment.reset(goal)
        except (Exception, SystemExit) as error:
            error.add_note(self._place)
            raise
        return self._observation(observation)

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool]:
        """See `Env.step`; a plain tuple, which is made in a fifth of the time of a `Step`.

        Raises:
            InputError: It returned no `Step`, or one of its values is of the wrong kind, shape or size.
        """
        self._steps += 1
        try:
            found = self._environment.step(action)
        except (Exception, SystemExit) as error:
            error.add_note(self._place)
            raise
        try:
            observation, reward, success, terminated = found
        except (TypeError, ValueError):
            self._refuse("what `step` returned", found, "a Step: observation, reward, success, terminated")
        if type(reward) is not float or not -_LARGEST <= reward <= _LARGEST:
            reward = self._number(reward)
        if success is not True and success is not False:
            success = self._flag("success", success)
        if terminated is not True and terminated is not False:
            terminated = self._flag("terminated", terminated)
        return self._observation(observation), reward, success, terminated

    @property
    def _place(self) -> str:
        return f"in {self._task}, goal {self._goal}, " + (f"step {self._steps}" if self._steps else "at its reset")

    def _observation(self, values: Any) -> NDArray[np.float32]:
        if type(values) is not np.ndarray or values.dtype.char not in "fd" or values.shape != self._shape:
            values = self._array(values)
        copy: NDArray[np.float32] = values.astype(_SINGLE)
        if not math.isfinite(copy.dot(self._small)):  # a quarter of the time of np.isfinite(copy).all()
            self._refuse("the observation", values, "finite numbers of single precision")
        return copy

    def _array(self, values: Any) -> NDArray[Any]:
        expected = f"an array of {self._shape[0]} numbers"
        try:
            array = np.asarray(values)
        except (TypeError, ValueError):
            self._refuse("the observation", values, expected)
        if array.dtype.kind not in "fiub" or array.shape != self._shape:
            self._refuse(f"the observation of shape {list(array.shape)} and type {array.dtype}", values, expected)
        return array

    def _number(self, value: Any) -> float:
        array = _scalar(value)
        if array is None or array.dtype.kind not in "fiub" or not -_LARGEST <= array <= _LARGEST:
            self._refuse("the reward", value, "a finite number of single precision")
        return float(array)

    def _flag(self, name: str, value: Any) -> bool:
        array = _scalar(value)
        if array is None or array.dtype.kind not in "fiub" or array not in (0, 1):
            self._refuse(name, value, "True or False (1 and 0 are taken for them)")
        return bool(array)

    def _refuse(self, what: str, found: Any, expected: str) -> NoReturn:
        raise InputError(f"{self._place}: {what} is {_short(found)}; expected {expected}. Mend the environment.")


def check_suite(suite: Suite) -> None:
    """Refuses a suite that others could not play.

    Raises:
        InputError: It lacks something, or is not the same when it is built again from its `arguments`: workers and
            stored data know it by these, and a task by its position.
    """
    kind = type(suite).__name__
    names = getattr(suite, "task_names", None)
    if not isinstance(names, tuple | list) or not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{kind}.task_names is {names!r}; expected the names of its tasks.")
    if len(set(names)) < len(names):
        raise InputError(f"{kind}.task_names has a name twice: {list(names)}; expected each once.")
    for size in ("observation_dim", "action_dim", "horizon"):
        value = getattr(suite, size, None)
        if type(value) is not int or value < 1:
            raise InputError(f"{kind}.{size} is {value!r}; expected a whole number, at least 1.")
    arguments = getattr(suite, "arguments", None)
    try:
        same = isinstance(arguments, dict) and json.loads(json.dumps(arguments)) is not None
    except (TypeError, ValueError):
        same = False
    if not same:
        raise InputError(
            f"{kind}.arguments is {_short(arguments)}; expected a dictionary of plain values (numbers, words, lists), "
            "the arguments of its constructor."
        )
    build_again(suite)


def checked_actions(actions: Any, shape: tuple[int, int], running: NDArray[np.bool_], task: str) -> NDArray[np.float32]:
    """A copy of a block's actions: the policy may use its array again, and an environment may write to what it gets.

    Args:
        actions: What the policy returned.
        shape: N and A.
        running: Which of the first rows are still played; the others may be anything.
        task: Name of the task.

    Raises:
        InputError: The shape is another, or a row that is played holds NaN.
    """
    try:
        copy = np.array(actions, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError(f"{task}: the policy's actions are {_short(actions)}; expected numbers [N, A].") from None
    if copy.shape != shape:
        raise InputError(
            f"{task}: the policy's actions have shape {list(copy.shape)}; expected [N, A] = {list(shape)}."
        )
    if np.isnan(copy).any() and np.isnan(copy[: len(running)][running]).any():
        raise InputError(f"{task}: the policy's actions hold NaN; expected numbers in [-1, 1].")
    return copy


def _scalar(value: Any) -> NDArray[Any] | None:
    """A number or flag as an array without axes; None for whatever else it is."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    return array.reshape(()) if array.size == 1 else None


def _short(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
