"""Episodes of strangers: their arrays as a store wants them, with the place of whatever is wrong in them."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.episode import Episode, as_flags, as_numbers
from mtorl.datasets.importers.base import check_finite

ROUNDING = 1e-6
"""How far actions in [-1, 1] may leave it by rounding."""


def cleaned(episode: Episode, where: str, clip: bool) -> Episode:
    """The same episode with arrays of the types that a store holds.

    Args:
        episode: Its arrays are of any real type.
        where: The file, and the episode in it.
        clip: Set actions beyond [-1, 1] on the bound; otherwise they are refused.

    Raises:
        InputError: Something is not finite, an action is beyond its bounds, or a flag is none.
    """
    numbers: dict[str, Any] = {}
    for name in ("observations", "actions", "rewards"):
        values = getattr(episode, name)
        check_finite(values, name, where)
        numbers[name] = as_numbers(values, f"{name} of {where}")
    reach = np.abs(numbers["actions"]).max(-1, initial=0)  # there may be none
    if not clip and (reach > 1 + ROUNDING).any():
        step = int((reach > 1 + ROUNDING).argmax())
        raise InputError(
            f"{where}: its action at step {step} reaches {reach[step]:.6g}; expected [-1, 1]. Set such actions on the "
            "bound with --clip_actions true, if that is what the environment did; otherwise rescale them."
        )
    flags: dict[str, Any] = {
        name: as_flags(getattr(episode, name), f"{name} flags of {where}")
        for name in ("success", "terminated", "truncated")
    }
    return replace(episode, **numbers | {"actions": np.clip(numbers["actions"], -1, 1)}, **flags)


def table(values: NDArray[Any], name: str, where: str) -> NDArray[Any]:
    """Observations or actions `[L, ...]` as rows of numbers `[L, O]`.

    Raises:
        InputError: They are images, or choices from a list.
    """
    check_table(values.shape, values.dtype, name, where)
    return values.reshape(len(values), -1) if values.ndim == 1 else values


def check_table(shape: tuple[int, ...], dtype: "np.dtype[Any] | None", name: str, where: str) -> int:
    """How many numbers observations or actions of that shape have in a step; raises InputError as `table` does."""
    if len(shape) > 2:
        image = "they look like images, and " if len(shape) > 3 or (dtype and dtype == np.uint8) else ""
        raise InputError(
            f"{where}: {name} have the shape {shape}; {image}each step is to be one row of numbers. Agents here see "
            "states, not images: choose another array with --keys."
        )
    if not shape or 0 in shape[1:]:
        raise InputError(f"{where}: {name} have the shape {shape}; expected a row of numbers for each step.")
    if len(shape) == 1 and name == "actions" and dtype is not None and dtype.kind != "f":
        raise InputError(
            f"{where}: actions are whole numbers, one a step, as if chosen from a list; expected real numbers."
        )
    return shape[1] if len(shape) == 2 else 1


def column(values: NDArray[Any], name: str, where: str, length: int) -> NDArray[Any]:
    """Rewards or flags `[L]` or `[L, 1]` as `[L]`; raises InputError for another shape."""
    if values.shape not in ((length,), (length, 1)):
        raise InputError(f"{where}: {name} have the shape {values.shape}; expected one for each of {length} steps.")
    return values.reshape(-1)


def check_following(observations: NDArray[Any], following: NDArray[Any], where: str) -> None:
    """Refuses steps that were shuffled or left out: windows need those that follow each other.

    Args:
        observations: `[L, O]`, before each step.
        following: `[L, O]`, after each step.
        where: The file, and the episode in it.

    Raises:
        InputError: What follows a step is not what comes before the next one.
    """
    check_finite(following, "next observations", where)
    same = np.isclose(following[:-1], observations[1:], rtol=1e-4, atol=1e-4, equal_nan=True).all(-1)
    if not same.all():
        raise InputError(
            f"{where}: what follows step {int(same.argmin())} is not what comes before the next step; expected whole "
            "episodes, in their order. If only the array of next observations is odd, leave it out (npz: --keys "
            "'{next_observations: \"\"}')."
        )
