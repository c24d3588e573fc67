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
from mtorl.schema import Document, MappingOf, Number, Record, Text

ERRORS = MappingOf(Number(0))
PRICE = Record({"data": Text(), "joint": ERRORS, "single": ERRORS, "ratios": ERRORS, "mean_ratio": Number(0)})


@dataclass(frozen=True)
class SharingPrice:
    """Errors of actions on recorded data, of one run for all tasks and of runs for single ones.

    Attributes:
        data: Folder of the data set.
        joint: Error of the run for all tasks, by the task's name.
        single: Error of the task's own run, mean of its runs.
    """

    data: str
    joint: dict[str, float]
    single: dict[str, float]

    @property
    def ratios(self) -> dict[str, float]:
        """The joint error over the single one: above one where sharing costs, below where it helps."""
        return {task: error / max(self.single[task], 1e-30) for task, error in self.joint.items()}

    @property
    def mean_ratio(self) -> float:
        """Geometric mean of the tasks."""
        return math.exp(float(np.mean([math.log(max(ratio, 1e-30)) for ratio in self.ratios.values()])))

    def plain(self) -> Document:
        """As plain values."""
        return asdict(self) | {"ratios": self.ratios, "mean_ratio": self.mean_ratio}

    @classmethod
    def read(cls, content: Document) -> "SharingPrice":
        """The inverse of `plain`."""
        return cls(content["data"], content["joint"], content["single"])


def sharing_price(run: Run, single: Sequence[str | Path], data: str | Path, checkpoint: str = "last") -> SharingPrice:
    """Compares a run's actions with those of runs that had one of its tasks each.

    Args:
        run: The run for all tasks.
        single: Folders of runs for single tasks, or folders that hold such; several of a task count with their mean.
        data: A data set with all tasks that none of them was trained on; one recorded on held-out goals, best.
        checkpoint: `last`, `best` on training goals, or a step; of all of them.

    Raises:
        InputError: A task has no run; or the runs differ in their agents, what they normalise with, or their data: then
            it is not only sharing that is measured.
    """
    names = run.spec.task_names
    found: dict[str, list[float]] = {name: [] for name in names}
    for other in _runs_of_single_tasks(single):
        (task,) = other.spec.task_names
        if task in found:
            _refuse_differences(run, other, checkpoint)
            found[task].append(other.action_errors(data, checkpoint).tasks[task])
    missing = [name for name, errors in found.items() if not errors]
    if missing:
        raise InputError(
            f"{', '.join(map(str, single))} holds no run of {', '.join(missing)} alone. Train one for each task with "
            f"--tasks '[TASK]' --statistics data, and otherwise as {run.folder}."
        )
    joint = run.action_errors(data, checkpoint).tasks
    return SharingPrice(str(data), joint, {name: float(np.mean(errors)) for name, errors in found.items()})


def _runs_of_single_tasks(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in these folders that had one task."""
    found = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"no folder {folder}; expected a run for a single task, or a folder that holds some.")
        found += [Run(file.parent) for file in sorted(folder.rglob("config.yaml"))]
    return [run for run in found if len(run.spec.task_names) == 1]


def _refuse_differences(run: Run, other: Run, checkpoint: str) -> None:
    """Raises InputError where more than sharing tells the error of one run from that of another."""
    ours, theirs = (flatten(it.configuration.plain) for it in (run, other))
    differing = [
        f"{key}: {ours.get(key)!r} and {theirs.get(key)!r}"
        for key in sorted({*ours, *theirs})
        if key.split(".")[0] == "agent" and ours.get(key) != theirs.get(key)
    ]
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
