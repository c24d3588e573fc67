"""What was measured of every method of a comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import EvalReport
from mtorl.intervals import mean_interval, wilson_interval
from mtorl.measures import RETURN, SCORE, SUCCESS, Scale, normalised
from mtorl.reports.settings import report_of
from mtorl.runs.run import Run
from mtorl.runs.sweep import Sweep
from mtorl.trainers.entries import TrainingEntry
from mtorl.trainers.logs import Log

Scores = NDArray[np.float64]
Interval = tuple[float, float, float]
"""A value and the ends of its 95 % interval."""


@dataclass(frozen=True, eq=False)
class Method:
    """What was measured of one method.

    Attributes:
        name: Its label.
        runs: For each seed the folders whose tasks together are all: one run, or one run per task.
        tasks: Names, in the suite's order.
        scores: Success `[seeds, tasks]`; of tasks without it the normalised scores if all of these have one, else the
            returns.
        normalised: Return-normalised scores `[seeds, tasks]` (see `References.scores`), NaN for tasks without, if
            episodes were played to their end.
        errors: Of actions on held-out data `[seeds, tasks]`, if they were asked for.
        protocol: How it was played.
        steps: Training steps for one seed, over all its runs.
        moves: Steps of the optimizers in a training step.
        spread: The largest weight of a task in a step over the smallest, median over its runs' logs; None where moves
            are no weighted sums.
        milliseconds: Of a training step, median over its runs' logs.
        minutes: Of training for one seed, over all its runs; mean of the seeds.
        parameters: That are trained for one seed, over all its runs.
        earned: Of tasks without success what every episode of every seed earned, on their scale.
        scale_of_others: What tasks without success are judged by.
    """

    name: str
    runs: Sequence[Sequence[Path]]
    tasks: tuple[str, ...]
    scores: Scores
    normalised: Scores | None
    errors: Scores | None
    protocol: Protocol
    steps: int
    moves: float
    spread: float | None
    milliseconds: float
    minutes: float
    parameters: int
    earned: Mapping[str, Scores]
    scale_of_others: Scale

    @cached_property
    def success(self) -> dict[str, Interval]:
        """Success in every task over all seeds, with its Wilson interval; of those without, what they are judged by."""
        goals, trials = self.protocol.goals, self.protocol.goals * len(self.scores)
        found: dict[str, Interval] = {}
        for number, task in enumerate(self.tasks):
            if task in self.earned:
                value = float(self.earned[task].mean())
                found[task] = value, *(mean_interval([self.earned[task]]) or (value, value))
            else:
                count = round(float(self.scores[:, number].sum()) * goals)
                found[task] = count / trials, *wilson_interval(count, trials)
        return found

    def scale(self, task: str) -> Scale:
        """What a task is judged by."""
        return self.scale_of_others if task in self.earned else SUCCESS

    @cached_property
    def places(self) -> "dict[Scale, list[int]]":
        """Places of the tasks that are judged alike; success first."""
        found: dict[Scale, list[int]] = {SUCCESS: [], self.scale_of_others: []}
        for number, task in enumerate(self.tasks):
            found[self.scale(task)].append(number)
        return {scale: places for scale, places in found.items() if places}

    @property
    def judged(self) -> Scale:
        """What all tasks together are judged by."""
        return next(iter(self.places))

    @property
    def judging(self) -> Scores:
        """The scores of the tasks that are judged by that, `[seeds, tasks]`."""
        return self.scores[:, self.places[self.judged]]


def tasks_of(runs: Sequence[Sequence[Path]], protocol: Protocol) -> tuple[str, ...]:
    """Names of all tasks of a method's runs, in the suite's order."""
    return tuple(name for folder in runs[0] for name in report_of(folder, protocol).task_names)


def measure(name: str, runs: Sequence[Sequence[Path]], tasks: tuple[str, ...], sweep: Sweep) -> Method:
    """What was measured of one method.

    Args:
        name: Its label.
        runs: For each seed the folders of evaluated runs.
        tasks: Names, in the suite's order.
        sweep: How they were evaluated.

    Raises:
        InputError: They were evaluated on other tasks.
    """
    protocol, references, heldout_data = sweep.protocol, sweep.references, sweep.heldout_data
    reports = [[report_of(folder, protocol) for folder in folders] for folders in runs]
    scale = _scale_of_others(reports[0])
    rates = [
        {row.task: row.on(scale if row.returns_only else SUCCESS).value for report in group for row in report.tasks()}
        for group in reports
    ]
    if any(set(found) != set(tasks) for found in rates):
        raise InputError(
            f"runs of {name} were evaluated on other tasks than the baseline; expected {', '.join(tasks)}."
        )
    logs = [Log(part.folder) for folders in runs for folder in folders for part in Run(folder).parts]
    entries = [row for log in logs for row in log.of(TrainingEntry)]
    normalised, errors = None, None
    if references:
        gains = [{task: it for report in group for task, it in references.scores(report).items()} for group in reports]
        normalised = np.array([[found.get(task, np.nan) for task in tasks] for found in gains])
        normalised = None if np.isnan(normalised).all() else normalised
    if heldout_data:
        found = [
            {task: error for folder in folders for task, error in _errors(folder, heldout_data).items()}
            for folders in runs
        ]
        errors = np.array([[it[task] for task in tasks] for it in found])
    return Method(
        name,
        runs,
        tasks,
        np.array([[found[task] for task in tasks] for found in rates]),
        normalised,
        errors,
        protocol,
        sum(report.source.step or 0 for report in reports[0]),
        float(np.mean([row.moves() for row in entries])),
        _spread(entries),
        1000 / float(np.median([row.steps_per_second for row in entries])),
        sum(log.minutes() for log in logs) / len(runs),
        sum(Run(folder).parameters() for folder in runs[0]),
        _earned(reports, scale),
        scale,
    )


def _scale_of_others(reports: Sequence[EvalReport]) -> Scale:
    """What tasks without success are judged by: normalised scores if all of them have one."""
    others = [row for report in reports for row in report.tasks() if row.returns_only]
    return SCORE if others and all(row.bounds for row in others) else RETURN


def _earned(reports: Sequence[Sequence[EvalReport]], scale: Scale) -> dict[str, Scores]:
    """What every episode earned in tasks without success, over all seeds."""
    found: dict[str, list[Scores]] = {}
    for report in (report for group in reports for report in group):
        for row in (row for row in report.tasks() if row.returns_only):
            returns = report.returns(row.task)
            found.setdefault(row.task, []).append(
                normalised(returns, row.bounds) if scale is SCORE and row.bounds else returns
            )
    return {task: np.concatenate(parts) for task, parts in found.items()}


def _spread(entries: Sequence[TrainingEntry]) -> float | None:
    """Largest over smallest weight of a task in an entry of the log, at most a million; median of the entries."""
    weights = [[abs(value) for value in row.weights()] for row in entries]
    ratios = [max(it) / max(min(it), 1e-6 * max(it)) for it in weights if it and max(it) > 0]
    return float(np.median(ratios)) if ratios else None


def _errors(folder: Path, heldout_data: str) -> dict[str, float]:
    return Run(folder).action_errors(heldout_data).tasks
