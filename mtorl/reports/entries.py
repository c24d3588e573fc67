"""A run as reports see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mtorl.datasets.spec import DataSpec
from mtorl.envs.results import EvalReport, TaskResult
from mtorl.runs.kept import kept_front
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
    def rows(self) -> list[TaskResult]:
        """Success of every task, with intervals."""
        return self.report.tasks()

    @cached_property
    def front(self) -> list[EvalReport]:
        """Evaluations at points between its tasks that were played in the same way."""
        return kept_front(self.run.folder, self.report)

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks that it was trained on."""
        return self.run.spec.task_names


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
    """Data specifications without repetitions, each with the names of the runs that used it."""
    groups: list[tuple[list[str], DataSpec]] = []
    for entry in entries:
        same = next((names for names, spec in groups if spec == entry.run.spec), None)
        if same is None:
            groups.append(([entry.name], entry.run.spec))
        else:
            same.append(entry.name)
    return [(", ".join(names), spec) for names, spec in groups]
