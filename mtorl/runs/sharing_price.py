"""What tasks pay for sharing parameters: errors of actions beside those of models for single tasks."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from mtorl import InputError
from mtorl.runs.configuration import flatten
from mtorl.runs.run import Run
from mtorl.schema import Document, ListOf, MappingOf, Number, Record, Text

ERRORS = MappingOf(Number(0))
PRICE = Record(
    {
        "data": Text(),
        "joint": ERRORS,
        "single": ERRORS,
        "unlike": ListOf(Text()),
        "ratios": ERRORS,
        "mean_ratio": Number(0),
    }
)
TRAINING = ("optimizer.", "sampling.", "shares", "schedule.steps", "windows", "tasks_per_batch")
"""Options that change how much is learned of a task. Runs may differ in them, but that is said."""


@dataclass(frozen=True)
class SharingPrice:
    """Errors of actions on recorded data, of one run for all tasks and of runs for single ones.

    Attributes:
        data: Folder of the data set.
        joint: Error of the run for all tasks, by the task's name.
        single: Error of the task's own run, mean of its runs.
        unlike: Options of training that differ between the run for all tasks and those for single ones, in words.
    """

    data: str
    joint: dict[str, float]
    single: dict[str, float]
    unlike: list[str]

    @property
    def ratios(self) -> dict[str, float]:
        """The joint error over the single one: above one where sharing costs, below where it helps."""
        return {task: error / self.single[task] for task, error in self.joint.items()}

    @property
    def mean_ratio(self) -> float:
        """Geometric mean of the tasks: twice the error in one task and half of it in another cost nothing."""
        return math.exp(float(np.mean(np.log([*self.ratios.values()]))))

    def plain(self) -> Document:
        """As plain values."""
        return asdict(self) | {"ratios": self.ratios, "mean_ratio": self.mean_ratio}

    @classmethod
    def read(cls, content: Document) -> "SharingPrice":
        """The inverse of `plain`."""
        return cls(content["data"], content["joint"], content["single"], content["unlike"])


def sharing_price(run: Run, single: Sequence[str | Path], data: str | Path, checkpoint: str = "last") -> SharingPrice:
    """Compares a run's actions with those of runs that had one of its tasks each.

    Args:
        run: The run for all tasks.
        single: Folders of runs for single tasks, or folders that hold such; several of a task count with their mean.
        data: A data set with all tasks that none of them was trained on; one recorded on held-out goals, best.
        checkpoint: `last`, `best` on training goals, or a step; of all of them.

    Raises:
        InputError: A task has no run; or the runs differ in their agents, what they normalise with, or their data: then
            it is not only sharing that is measured; or an error is zero.
    """
    names = run.spec.task_names
    found: dict[str, list[float]] = {name: [] for name in names}
    unlike: list[str] = []
    for other in _runs_of_single_tasks(single):
        (task,) = other.spec.task_names
        if task in found:
            _refuse_differences(run, other, checkpoint)
            unlike += _training_differences(run, other)
            found[task].append(other.action_errors(data, checkpoint).tasks[task])
    missing = [name for name, errors in found.items() if not errors]
    if missing:
        raise InputError(
            f"{', '.join(map(str, single))} holds no run of {', '.join(missing)} alone. Train one for each task with "
            f"--tasks '[TASK]' --statistics data, and otherwise as {run.folder}."
        )
    joint = run.action_errors(data, checkpoint).tasks
    alone = {name: float(np.mean(errors)) for name, errors in found.items()}
    exact = [name for name in names if not (joint[name] and alone[name])]
    if exact:
        raise InputError(
            f"the actions of {', '.join(exact)} are without any error on {data}; expected errors that can be divided. "
            "Compare on other recorded episodes."
        )
    return SharingPrice(str(data), joint, alone, list(dict.fromkeys(unlike)))


def _runs_of_single_tasks(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in these folders that had one task."""
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; expected a run for a single task, or a folder that holds some.")
        inside = [Run(file.parent) for file in sorted(folder.rglob("config.yaml"))]
        alone = [run for run in inside if len(run.spec.task_names) == 1]
        if not alone:
            raise InputError(
                f"{folder} holds no run for a single task; expected such a run, or a folder that holds some."
            )
        found += alone
    return list({run.folder.resolve(): run for run in found}.values())  # a folder may be given beside one in it


def _refuse_differences(run: Run, other: Run, checkpoint: str) -> None:
    """Raises InputError where more than sharing tells the error of one run from that of another."""
    differing = _differences(run, other, ("agent.",))
    if [entry["sha256"] for entry in run.spec.data] != [entry["sha256"] for entry in other.spec.data]:
        differing.append("their data (the manifests' hashes)")
    if not differing:
        place = run.spec.task_names.index(other.spec.task_names[0])
        one, single = run.trained(checkpoint)[0], other.trained(checkpoint)[0]
        pairs = ((one.observation_mean, single.observation_mean), (one.observation_std, single.observation_std))
        if not all(torch.allclose(mine[place], others[0]) for mine, others in pairs):
            differing.append("what they normalise observations with (train with --statistics data)")
    if differing:
        raise InputError(
            f"{run.folder} and {other.folder} differ in {'; '.join(differing)}. Expected runs that differ in their "
            "tasks alone, or the price of sharing is not what is measured."
        )


def _training_differences(run: Run, other: Run) -> list[str]:
    return [f"{text} (all tasks and {other.spec.task_names[0]})" for text in _differences(run, other, TRAINING)]


def _differences(run: Run, other: Run, options: tuple[str, ...]) -> list[str]:
    """Options that begin so and differ, in words."""
    ours, theirs = (flatten(it.configuration.plain) for it in (run, other))
    return [
        f"{key}: {ours.get(key)!r} and {theirs.get(key)!r}"
        for key in sorted({*ours, *theirs})
        if key.startswith(options) and ours.get(key) != theirs.get(key)
    ]
