"""A run as reports see it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mtorl import InputError
from mtorl.datasets.spec import DataSpec
from mtorl.envs.results import EvalReport
from mtorl.envs.task_result import TaskResult
from mtorl.measures import Scale
from mtorl.reports.many import hardest
from mtorl.runs.run import Run
from mtorl.trainers.logs import Log

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's palette, distinguishable with colour-blind eyes."""


@dataclass(frozen=True)
class RunEntry:
    """One run of a report.

    Attributes:
        name: That no other run of the report has.
        run: The run.
        report: The evaluation that is shown.
        log: What it wrote while training.
        colour: In pictures.
    """

    name: str
    run: Run
    report: EvalReport
    log: Log
    colour: str

    @cached_property
    def parts(self) -> "list[RunEntry]":
        """Those of the runs that it consists of: itself, or one for each group of tasks."""
        if not self.run.per_group:
            return [self]
        return [
            replace(self, name=f"{self.name}, {part.folder.name}", run=part, log=Log(part.folder))
            for part in self.run.parts
        ]

    @cached_property
    def parameters(self) -> int | None:
        """Numbers that were trained; None if its agent cannot be built any more."""
        try:
            return self.run.parameters()
        except InputError:
            return None

    @cached_property
    def steps(self) -> int:
        """Training steps that were saved, of all parts."""
        return sum(max(part.run.checkpoints().steps(), default=0) for part in self.parts)

    @property
    def minutes(self) -> float:
        """How long these took."""
        return sum(part.log.minutes() for part in self.parts)

    @cached_property
    def rows(self) -> list[TaskResult]:
        """Success of every task, with intervals."""
        return self.report.tasks()

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks that it was trained on."""
        return self.run.spec.task_names


def hardest_tasks(entries: Sequence[RunEntry]) -> dict[Scale, list[str]]:
    """What tasks are judged by, and which; of many those in which the runs together are worst, the hardest first."""
    found = {}
    for scale, alike in entries[0].report.scales.items():
        values = dict.fromkeys((row.task for row in alike), 0.0)
        for row in (row for entry in entries for row in entry.rows if row.task in values):
            values[row.task] += row.on(scale).value
        found[scale] = hardest(values)
    return found


def entries_of(runs: Sequence[Run], reports: Sequence[EvalReport]) -> list[RunEntry]:
    """The runs with the evaluations that are shown of them, under names that tell them apart."""
    names = [run.folder.name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.folder) for run in runs]
    return [
        RunEntry(name, run, report, Log(run.folder), COLOURS[number % len(COLOURS)])
        for number, (name, run, report) in enumerate(zip(names, runs, reports, strict=True))
    ]


def distinct_specs(entries: Sequence[RunEntry]) -> list[tuple[str, DataSpec]]:
    """Data specifications without repetitions and groups, each with the names of the runs that used it."""
    groups: list[tuple[list[str], DataSpec]] = []
    for entry in entries:
        data = replace(entry.run.spec, groups=None)
        same = next((names for names, spec in groups if spec == data), None)
        if same is None:
            groups.append(([entry.name], data))
        else:
            same.append(entry.name)
    return [(", ".join(names), spec) for names, spec in groups]
