"""One recorded episode, and the door through which recorded values come: dtypes and shapes are checked here once."""

import operator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError, checks

STEP_COLUMNS: dict[str, str] = {
    "actions": "<f4",
    "rewards": "<f4",
    "returns_to_go": "<f4",
    "success": "|b1",
    "terminated": "|b1",
    "truncated": "|b1",
}
"""The columns of a store with one row per step."""
EPISODE_DTYPE: np.dtype = np.dtype(
    [("task", "<i4"), ("length", "<i8"), ("goal", "<i4"), ("seed", "<i8"), ("noise", "<f4"), ("random", "<f4")]
)
"""`goal`: index in the suite (-1: unknown); `noise`: standard deviation of the Gaussian noise on the actions;
`random`: probability that a block of steps took a uniform random action instead of the policy's."""


@dataclass(frozen=True)
class Episode:
    """One recorded run of one task.

    Attributes:
        task: Name of the task.
        observations: `[L+1, O]`; the last row is the successor of the last step.
        actions: `[L, A]` in [-1, 1].
        rewards: `[L]`, undiscounted, unscaled.
        success: `[L]`, the task's own success flag after each step.
        terminated: `[L]`, the environment ended the episode here.
        truncated: `[L]`, the time limit (or the recorder) ended it here.
        goal: Index of the goal in the suite, -1 if unknown.
        seed: What the recorder's random stream was derived from.
        noise: Standard deviation of Gaussian noise on the actions.
        random: Probability of a block of random actions.
    """

    task: str
    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]
    success: NDArray[np.bool_]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    goal: int = -1
    seed: int = 0
    noise: float = 0.0
    random: float = 0.0

    def __len__(self) -> int:
        return len(self.actions)

    def checked(self, observation_dim: int, action_dim: int) -> "Episode":
        """The same episode as arrays of the dtypes and shapes that a store holds.

        Lists, tensors and arrays of other numbers are converted; so are rewards and flags `[L, 1]`.

        Args:
            observation_dim: O.
            action_dim: A.

        Raises:
            InputError: Something has another shape, is no number or no flag, is not finite in single precision, or an
                action leaves [-1, 1].
        """
        numbers, flags = ("observations", "actions", "rewards"), ("success", "terminated", "truncated")
        where = {name: f"{name} of {self.task}" for name in numbers}
        where |= {name: f"{name} flags of {self.task}" for name in flags}
        values = {name: _as_array(getattr(self, name), words) for name, words in where.items()}
        self._check_shapes(values, observation_dim, action_dim)
        columns: dict[str, Any] = {name: as_numbers(values[name], where[name]) for name in numbers}
        columns |= {name: as_flags(values[name].reshape(-1), where[name]) for name in flags}
        columns["rewards"] = columns["rewards"].reshape(-1)
        reach = np.abs(columns["actions"]).max()
        if reach > 1:
            raise InputError(f"actions of {self.task} reach {reach:.3g}; expected [-1, 1]. Clip or rescale them first.")
        return replace(self, **columns, **self._checked_origin())

    def _check_shapes(self, values: dict[str, NDArray[Any]], observation_dim: int, action_dim: int) -> None:
        length = values["actions"].shape[0] if values["actions"].ndim else 0
        if not length:
            raise InputError(f"an episode of {self.task} has no steps; expected at least one action.")
        for name in ("rewards", "success", "terminated", "truncated"):
            count = values[name].shape[0] if values[name].ndim else 0
            if count != length:
                raise InputError(
                    f"an episode of {self.task} has {length} actions but {count} {name}; expected one each per step."
                )
            if values[name].size != length:
                raise InputError(
                    f"{name} of an episode of {self.task} have the shape {values[name].shape}; expected ({length},), "
                    "one each per step. Choose one column of them."
                )
        observations = values["observations"].shape
        if observations[:1] != (length + 1,):
            raise InputError(
                f"an episode of {self.task} has {length} actions and {observations[0] if observations else 0} "
                f"observations; expected {length + 1}: the last step needs its successor."
            )
        for name, steps, size in (("observations", length + 1, observation_dim), ("actions", length, action_dim)):
            if values[name].ndim != 2:
                raise InputError(
                    f"{name} of an episode of {self.task} have the shape {values[name].shape}; expected "
                    f"({steps}, {size}): one row of {size} numbers each. Reshape them."
                )
        dimensions = observations[1], values["actions"].shape[1]
        if dimensions != (observation_dim, action_dim):
            raise InputError(
                f"an episode of {self.task} has observation and action dimensions {dimensions}; expected "
                f"{(observation_dim, action_dim)}."
            )

    def _checked_origin(self) -> dict[str, Any]:
        """Goal, seed, noise and randomness as the index of a store holds them."""
        origin: dict[str, Any] = {}
        for name, convert, interval in (
            ("goal", operator.index, "[-1, 2147483647]"),
            ("seed", operator.index, "[-9.2e18, 9.2e18]"),
            ("noise", float, "[0, 3e38]"),
            ("random", float, "[0, 1]"),
        ):
            value = getattr(self, name)
            try:
                origin[name] = convert(value)
            except (TypeError, ValueError):
                raise InputError(
                    f"{name} of an episode of {self.task} is {value!r}; expected a number in {interval}"
                    f"{' (-1: unknown)' if name == 'goal' else ''}."
                ) from None
            checks.within(interval, **{name: origin[name]})
        return origin


@dataclass(frozen=True)
class Demonstration:
    """A recorded episode of L steps, shown to a policy: instead of its task's name, or instead of its own prompts.

    Attributes:
        observations: float32 `[L, O]`, before each step.
        actions: float32 `[L, A]`.
        rewards: float32 `[L]`.
    """

    observations: NDArray[np.float32]
    actions: NDArray[np.float32]
    rewards: NDArray[np.float32]

    @property
    def returns_to_go(self) -> NDArray[np.float32]:
        """Sum of this and all later rewards `[L]`."""
        return np.cumsum(self.rewards[::-1], dtype=np.float64)[::-1].astype(np.float32)


def _as_array(values: Any, where: str) -> NDArray[Any]:
    """Any array-like as an array of numbers; raises InputError for what has missing entries or holds something else."""
    if np.ma.is_masked(values):
        raise InputError(f"{where} have masked entries; expected a value everywhere. Fill them, or leave steps out.")
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged lists, tensors with gradients or on a GPU
        raise InputError(f"{where} cannot be read as an array: {' '.join(str(error).split())}") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{where} are of type {array.dtype}; expected real numbers or flags. Convert them first.")
    return array


def as_numbers(values: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Real numbers in single precision.

    Args:
        values: Of any numeric dtype.
        where: What they are, for the message; plural.

    Raises:
        InputError: A value is not finite in single precision.
    """
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32, copy=False)
    if not np.isfinite(numbers).all():
        worst = values[~np.isfinite(numbers)].flat[0]
        what = f"{worst:.3g}, infinity in single precision" if np.isfinite(worst) else "NaN or infinity"
        raise InputError(f"{where} hold {what}; expected finite numbers. Record them again, or rescale them.")
    return numbers


def as_flags(values: NDArray[Any], where: str) -> NDArray[np.bool_]:
    """Flags: booleans, or numbers that are exactly 0 or 1, as simulators report them.

    Args:
        values: Of any numeric dtype.
        where: What they are, for the message; plural.

    Raises:
        InputError: A value is neither 0 nor 1.
    """
    bytes_ = values.view(np.uint8) if values.dtype == np.bool_ else values  # files may hold 2 where a flag should be
    odd = bytes_[(bytes_ != 0) & (bytes_ != 1)]
    if odd.size:
        raise InputError(f"{where} hold {odd.flat[0]}; expected flags: true or false, or exactly 0 or 1.")
    return values.astype(np.bool_, copy=False)


def padded(values: NDArray[Any], size: int) -> NDArray[Any]:
    """Values `[..., n]` of a task with zeros behind them, as where tasks have more: `[..., size]`."""
    if values.shape[-1] == size:
        return values
    wide = np.zeros((*values.shape[:-1], size), dtype=values.dtype)
    wide[..., : values.shape[-1]] = values
    return wide
