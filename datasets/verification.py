"""Recomputes what a data set says of itself, from its episodes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.episode import Episode
from mtorl.datasets.statistics import TaskTally, returns_to_go

TOLERANCE = 1e-6
"""Relative to the size of the values: recorders may have rounded after they counted, single precision is 6e-8."""
REMEDY = "The data were changed. Copy or collect them again."


def verify_episodes(
    where: str, episodes: Iterable[tuple[Episode, NDArray[np.float32]]], manifest: dict[str, Any]
) -> None:
    """Checks every value, the returns-to-go, and the statistics that a manifest states for every task.

    Args:
        where: Names the data set in messages.
        episodes: Each with its stored returns-to-go `[L]`.
        manifest: Of the form `store.MANIFEST`.

    Raises:
        InputError: Names the file, the episode and the step, or the field of the manifest.
    """
    _verify_names(where, manifest)
    own = dict(zip(manifest["task_names"], manifest.get("own_dimensions", ()), strict=False))
    tallies = {name: TaskTally(manifest["observation_dim"]) for name in manifest["task_names"]}
    sizes = dict.fromkeys(tallies, 0.0)  # of the largest return, if no rewards cancelled
    for number, (episode, returns) in enumerate(episodes):
        _verify_values(where, number, episode)
        if episode.task in own:
            _verify_padding(where, number, episode, own[episode.task])
        if episode.task in manifest.get("returns_only", ()) and episode.success.any():
            raise InputError(
                f"{where}: success.npy marks step {int(episode.success.argmax())} of episode {number} of "
                f"{episode.task}, a task that its manifest.json counts among those without success. {REMEDY}"
            )
        if len(episode) > manifest["horizon"]:
            raise InputError(
                f"{where}: episode {number} of {episode.task} has {len(episode)} steps, its manifest.json states a "
                f"horizon of {manifest['horizon']}. {REMEDY}"
            )
        size = float(np.abs(episode.rewards).sum(dtype=np.float64))
        differing = ~(np.abs(returns - returns_to_go(episode.rewards)) <= TOLERANCE * size)
        if differing.any():
            step = int(differing.argmax())
            raise InputError(
                f"{where}: returns_to_go.npy says {returns[step]:.6g} at step {step} of episode {number} of "
                f"{episode.task}; expected {returns_to_go(episode.rewards)[step]:.6g}, the sum of the rewards from "
                f"there on. {REMEDY}"
            )
        tallies[episode.task].add(episode.observations, episode.rewards, episode.success)
        sizes[episode.task] = max(sizes[episode.task], size)
    for place, (name, tally) in enumerate(tallies.items()):
        _verify_statistics(where, place, manifest["tasks"][place], tally, sizes[name])


def _verify_values(where: str, number: int, episode: Episode) -> None:
    """Raises InputError for a number that is not finite, an action outside [-1, 1], or a flag that is none."""
    for name in ("observations", "actions", "rewards"):
        values = getattr(episode, name)
        good = np.isfinite(values)
        problem, expected = "hold NaN or infinity", "finite numbers"
        if name == "actions" and good.all():
            good = np.abs(values) <= 1
            problem, expected = f"reach {np.abs(values).max():.3g}", "[-1, 1]"
        if not good.all():
            step = int(np.flatnonzero(~good.reshape(len(good), -1).all(1))[0])
            raise InputError(
                f"{name} of {where} {problem} ({name}.npy, episode {number} of {episode.task}, step {step}); expected "
                f"{expected}. Record it again."
            )
    for name in ("success", "terminated", "truncated"):
        odd = np.flatnonzero(getattr(episode, name).view(np.uint8) > 1)
        if odd.size:
            raise InputError(
                f"{where}: {name}.npy holds no flag at step {odd[0]} of episode {number} of {episode.task}; expected "
                f"bytes 0 or 1. {REMEDY}"
            )


def _verify_names(where: str, manifest: dict[str, Any]) -> None:
    """Raises InputError if tasks without success are no tasks, or a task has more dimensions than all together."""
    unknown = [name for name in manifest.get("returns_only", ()) if name not in manifest["task_names"]]
    if unknown:
        raise InputError(f"{where}: its manifest.json counts {unknown} among tasks without success, and has no such.")
    most = [manifest["observation_dim"], manifest["action_dim"]]
    for name, sizes in zip(manifest["task_names"], manifest.get("own_dimensions", ()), strict=False):
        if sizes[0] > most[0] or sizes[1] > most[1]:
            raise InputError(
                f"{where}: its manifest.json gives {name} the dimensions {sizes}; expected at most {most}."
            )


def _verify_padding(where: str, number: int, episode: Episode, sizes: Sequence[int]) -> None:
    """Raises InputError for what is not zero beyond a task's own dimensions."""
    for name, size in zip(("observations", "actions"), sizes, strict=True):
        odd = np.argwhere(getattr(episode, name)[:, size:])
        if odd.size:
            step, dimension = odd[0] + (0, size)
            raise InputError(
                f"{where}: {name}.npy is not zero in dimension {dimension} at step {step} of episode {number} of "
                f"{episode.task}, which has {size} dimensions of its own; expected padding. {REMEDY}"
            )


def _verify_statistics(where: str, place: int, stated: dict[str, Any], tally: TaskTally, size: float) -> None:
    """Compares what a manifest says of one task with what was counted."""
    counted = tally.summary()
    scale = np.hypot(tally.moments.mean, tally.moments.std)
    allowed = {
        "return_mean": size,
        "return_quantiles": size,
        "observation_mean": scale,
        "observation_std": scale,
        "success_rate": 1.0,
        "success_last_rate": 1.0,
    }
    for key, sizes in allowed.items():
        expected, found = np.atleast_1d(counted[key]), np.atleast_1d(stated[key])
        wrong = ~(np.abs(found - expected) <= TOLERANCE * np.asarray(sizes))
        if wrong.any():
            first = int(wrong.argmax())
            entry = f"[{first}]" if isinstance(counted[key], list) else ""
            raise InputError(
                f"{where}: its manifest.json says {found[first]:.6g} for tasks[{place}].{key}{entry}; the episodes of "
                f"{stated['name']} give {expected[first]:.6g}. {REMEDY}"
            )
