"""Recorded episodes that policies are shown when they play."""

from collections.abc import Sequence
from dataclasses import replace

from mtorl import InputError
from mtorl.datasets.episode import Demonstration
from mtorl.datasets.opening import same_settings
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import Suite
from mtorl.envs.protocol import Protocol


def demonstrations(protocol: Protocol, suite: Suite, steps: int) -> Sequence[Demonstration | None]:
    """The best recorded episode of each task that has so many steps, as agents see it.

    Args:
        protocol: Which data set to show; where it names none, no task has one.
        suite: The suite that is played.
        steps: The fewest steps.

    Raises:
        InputError: The data are of another suite, lack a task, or were recorded on the goals that are played.
    """
    path = protocol.demonstrations
    if path is None:
        return [None] * len(suite.task_names)
    from mtorl.datasets.prompts import PromptPool, PromptSettings  # loads torch, which recording experts does not need

    store = EpisodeStore(path)
    if not same_settings(suite.describe(), store):
        raise InputError(
            f"the data in {path} were recorded in another suite, or with other settings of it: expected "
            f"{suite.describe()}, found {store.manifest['suite']}. Demonstrate with data of the suite that is played."
        )
    missing = [name for name in suite.task_names if name not in store.task_names]
    if missing:
        raise InputError(
            f"the data in {path} cannot demonstrate the tasks {missing}: they have {list(store.task_names)}. Collect "
            "episodes of these tasks, or name another folder."
        )
    if store.manifest["source"].get("split", "train") == protocol.split:
        other = "train" if protocol.split == "heldout" else "heldout"
        raise InputError(
            f"the data in {path} were recorded on the goals that the protocol {protocol.name} plays: a policy could be "
            f"shown the solution. Demonstrate with data collected with --split {other}."
        )
    pool = PromptPool([store], suite.task_names, PromptSettings(length=steps))
    return [
        replace(it, observations=suite.of(task).observe(it.observations))
        for task, it in enumerate(pool.demonstrations())
    ]
