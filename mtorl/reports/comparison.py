"""Compares methods over tasks and seeds: a table per task, robust means, and how sure a difference is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.envs.protocol import Protocol
from mtorl.files import write_atomically, write_json
from mtorl.intervals import (
    analysis_of_variance,
    bootstrap_interval,
    delta_m,
    interquartile_mean,
    probability_of_improvement,
    wilson_interval,
)
from mtorl.reports.masks import MaskSummary, draw_masks, draw_moves, summarise
from mtorl.reports.pages import page, picture, subplots
from mtorl.reports.settings import report_of
from mtorl.runs.run import Run
from mtorl.runs.sweep import Sweep
from mtorl.trainers.logs import read_log

Moves = list[tuple[int, float]]
BLUE, GREY = "#0072b2", "#888888"
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
        scores: Success `[seeds, tasks]`.
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

    def task(self, number: int) -> Interval:
        """Success in a task over all seeds, with its Wilson interval."""
        trials = self.protocol.goals * len(self.scores)
        successes = round(float(self.scores[:, number].sum()) * self.protocol.goals)
        return successes / trials, *wilson_interval(successes, trials)


@dataclass(frozen=True)
class Row:
    """One method compared to the others.

    Attributes:
        method: What was measured.
        mean: Success over seeds and tasks.
        middle: Its interquartile mean.
        bases: What it is compared to, by the baselines' labels.
        improvement: Probability that it beats each baseline, by the baseline's label; None for itself.
        score: Return-normalised score over seeds and tasks, if there is one.
        lead: By how much that is above each baseline's, by the baseline's label; None for itself.
        gains: Over single-task models, by their label; none for these themselves.
        error: Mean error of actions, if it was measured.
    """

    method: Method
    mean: Interval
    middle: Interval
    bases: dict[str, Method]
    improvement: dict[str, Interval | None]
    score: Interval | None
    lead: dict[str, Interval | None]
    gains: "dict[str, Gain]"
    error: Interval | None

    @property
    def is_base(self) -> bool:
        """Whether it is a baseline itself."""
        return self.method in self.bases.values()

    @property
    def step_ratio(self) -> float:
        """Time of a training step over that of the first baseline."""
        return self.method.milliseconds / next(iter(self.bases.values())).milliseconds


@dataclass(frozen=True)
class Gain:
    """What a method gains over single-task models (delta-m).

    Attributes:
        success: Relative gain of success, mean of the tasks; None where they never succeed.
        solved: The same of the tasks that they solve in `SOLVED` of the episodes or more.
        error: Of the error of actions, if that was measured.
    """

    success: Interval | None
    solved: Interval | None
    error: Interval | None


SOLVED = 0.05
"""A relative gain over a rate of success below this says little."""


def compare(sweep: Sweep) -> Path:
    """Writes one HTML file that opens without a network, and the same numbers as JSON beside it.

    Args:
        sweep: The finished runs.

    Returns:
        The HTML file, `comparison.html` in the sweep's folder.
    """
    tasks = _tasks(next(iter(sweep.methods.values())), sweep.protocol)
    found = {name: _measure(name, runs, tasks, sweep) for name, runs in sweep.methods.items()}
    models = {name: found[name] for name in sweep.single}
    rows = [
        _row(
            method,
            {label: found[base[name]] for label, base in sweep.baselines.items()},
            {} if name in models else models,
        )
        for name, method in found.items()
    ]
    variance = analysis_of_variance([it.scores.mean(1).tolist() for name, it in found.items() if name not in models])
    masks, moves = _masks(found)
    content = {
        "rows": rows,
        "tasks": tasks,
        "bases": list(sweep.baselines),
        "scored": rows[0].score is not None,
        "by_setting": any(len({base[name] for name in base}) > 1 for base in sweep.baselines.values()),
        "masks": masks,
        "moves": picture(draw_moves(moves)) if moves else None,
        "single": list(sweep.single),
        "solved": SOLVED,
        "variance": variance,
        "heldout_data": sweep.heldout_data,
        "protocol": sweep.protocol,
        "picture": picture(_draw(rows)),
    }
    out = sweep.folder / "comparison.html"
    write_json(
        out.with_suffix(".json"),
        _as_json(rows, sweep, {name: one.changed for name, one, _ in masks}, variance),
    )
    html = page("comparison.html", content)
    write_atomically(out, lambda file: file.write(html))
    return out


def _tasks(runs: Sequence[Sequence[Path]], protocol: Protocol) -> tuple[str, ...]:
    return tuple(name for folder in runs[0] for name in report_of(folder, protocol).task_names)


def _measure(name: str, runs: Sequence[Sequence[Path]], tasks: tuple[str, ...], sweep: Sweep) -> Method:
    protocol, references, heldout_data = sweep.protocol, sweep.references, sweep.heldout_data
    reports = [[report_of(folder, protocol) for folder in folders] for folders in runs]
    rates = [{row.task: row.rate for report in group for row in report.tasks()} for group in reports]
    if any(set(found) != set(tasks) for found in rates):
        raise InputError(
            f"runs of {name} were evaluated on other tasks than the baseline; expected {', '.join(tasks)}."
        )
    everything = [folder for folders in runs for folder in folders]
    entries = [row for folder in everything for row in read_log(folder) if row["kind"] == "training"]
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
        sum(int(report.source["step"]) for report in reports[0]),
        float(np.mean([_moves(row) for row in entries])),
        _spread(entries),
        1000 / float(np.median([row["steps_per_second"] for row in entries])),
        sum(sum(_seconds(folder)) for folder in everything) / 60 / len(runs),
    )


def _moves(entry: dict[str, Any]) -> float:
    """Optimizer steps in a training step, all phases together; logs of earlier versions do not say."""
    return sum(value for key, value in entry.items() if key.endswith("/moves")) or 1.0


def _spread(entries: Sequence[dict[str, Any]]) -> float | None:
    """Largest over smallest weight of a task in an entry of the log, at most a million; median of the entries."""
    weights = [[abs(value) for key, value in row.items() if "/weight/" in key] for row in entries]
    ratios = [max(it) / max(min(it), 1e-6 * max(it)) for it in weights if it and max(it) > 0]
    return float(np.median(ratios)) if ratios else None


def _errors(folder: Path, heldout_data: str) -> dict[str, float]:
    return Run(folder).action_errors(heldout_data)["tasks"]


def _seconds(folder: Path) -> list[float]:
    """Seconds of training between two entries of a run's log."""
    entries = [row for row in read_log(folder) if row["kind"] == "training"]
    steps = np.diff([0, *[row["step"] for row in entries]])
    return [count / row["steps_per_second"] for count, row in zip(steps, entries, strict=True)]


def _row(method: Method, bases: dict[str, Method], models: dict[str, Method]) -> Row:
    def with_interval(statistic: Callable[..., float], *samples: Scores) -> Interval:
        return statistic(*samples), *bootstrap_interval(statistic, *samples)

    def mean(scores: Scores) -> float:
        return float(np.nanmean(scores))

    def difference(scores: Scores, other: Scores) -> float:
        return mean(scores) - mean(other)

    scores, errors = method.scores, method.errors
    return Row(
        method,
        with_interval(mean, scores),
        with_interval(interquartile_mean, scores),
        bases,
        {
            label: None if method is base else with_interval(probability_of_improvement, scores, base.scores)
            for label, base in bases.items()
        },
        with_interval(mean, method.normalised) if method.normalised is not None else None,
        {
            label: None if method is base else with_interval(difference, method.normalised, base.normalised)
            for label, base in bases.items()
            if method.normalised is not None and base.normalised is not None
        },
        {name: _gain(method, single) for name, single in models.items()},
        with_interval(mean, errors) if errors is not None else None,
    )


def _gain(method: Method, single: Method) -> Gain:
    """A method's gain over single-task models, with intervals."""

    def success(tasks: NDArray[np.bool_]) -> Interval | None:
        ours, theirs = method.scores[:, tasks], single.scores[:, tasks]
        if not (theirs > 0).all(0).any():  # in every draw of seeds some task has a relative gain
            return None
        return delta_m(ours, theirs), *bootstrap_interval(delta_m, ours, theirs)

    def error_gain(errors: Scores, reference: Scores) -> float:
        return delta_m(errors, reference, lower_is_better=True)

    error = None
    if method.errors is not None and single.errors is not None:
        measured = method.errors, single.errors
        error = error_gain(*measured), *bootstrap_interval(error_gain, *measured)
    every = np.ones(len(method.tasks), dtype=bool)
    return Gain(success(every), success(single.scores.mean(0) >= SOLVED), error)


def _as_json(
    rows: Sequence[Row],
    sweep: Sweep,
    changed: Mapping[str, float],
    variance: tuple[float, float],
) -> dict[str, Any]:
    tasks = rows[0].method.tasks
    return {
        "baselines": list(rows[0].bases),
        "single_task_models": list(sweep.single),
        "analysis_of_variance": None if np.isnan(variance[0]) else {"F": variance[0], "p": variance[1]},
        "heldout_data": sweep.heldout_data,
        "tasks": list(tasks),
        "methods": [
            {
                "name": row.method.name,
                "seeds": len(row.method.scores),
                "episodes": row.method.protocol.goals,
                "mean": row.mean,
                "interquartile_mean": row.middle,
                "probability_of_improvement": row.improvement,
                "normalised_score": row.score,
                "normalised_score_lead": row.lead,
                "delta_m": {name: gain.success for name, gain in row.gains.items()},
                "delta_m_of_solved": {name: gain.solved for name, gain in row.gains.items()},
                "action_error": row.error,
                "action_error_delta_m": {name: gain.error for name, gain in row.gains.items()},
                "milliseconds_per_step": row.method.milliseconds,
                "step_over_baseline": row.step_ratio,
                "steps": row.method.steps,
                "moves_per_step": row.method.moves,
                "weights_max_over_min": row.method.spread,
                "minutes": row.method.minutes,
                "masks_changed": changed.get(row.method.name),
                "tasks": {task: row.method.task(number) for number, task in enumerate(tasks)},
                "scores": row.method.scores.tolist(),
                "normalised_scores": _or_none(row.method.normalised),
                "action_errors": _or_none(row.method.errors),
                "runs": [str(folder) for folders in row.method.runs for folder in folders],
            }
            for row in rows
        ],
    }


def _or_none(scores: Scores | None) -> list[list[float | None]] | None:
    """As JSON: what is not a number is null."""
    return None if scores is None else [[it if np.isfinite(it) else None for it in row] for row in scores.tolist()]


def _masks(methods: Mapping[str, Method]) -> tuple[list[tuple[str, MaskSummary, str]], list[tuple[str, Moves]]]:
    """Summary and picture of the masks of each method's first run, and how they moved."""
    summaries = [(name, one) for name, method in methods.items() for one in summarise(Run(method.runs[0][0]))]
    pictures = [(_title(name, one), one, picture(draw_masks(one))) for name, one in summaries]
    return pictures, [(_title(name, one), one.moves) for name, one in summaries if one.moves]


def _title(name: str, summary: MaskSummary) -> str:
    return name if summary.phase == "policy" else f"{name}, {summary.phase}"


def _draw(rows: Sequence[Row]) -> Any:
    """Success, probabilities of improvement, normalised scores and errors of actions, as points with intervals."""
    labels = list(rows[0].bases)
    panels: list[tuple[str, float, list[Interval | None]]] = [
        ("interquartile mean of success, %", 100, [row.middle for row in rows]),
        *(
            (f"probability of improvement over {label}, %", 100, [row.improvement[label] for row in rows])
            for label in labels
        ),
    ]
    if rows[0].score is not None:
        panels.append(("return-normalised score, %", 100, [row.score for row in rows]))
    if rows[0].error is not None:
        panels.append(("squared error of actions, thousandths", 1000, [row.error for row in rows]))
    figure, axes = subplots(1, len(panels), (3 + 4 * len(panels), 0.8 + 0.28 * len(rows)))
    places = range(len(rows))
    for axis, (title, factor, values) in zip(axes[0], panels, strict=True):
        for row, place, value in zip(rows, places, values, strict=True):
            if value is not None:
                colour = GREY if row.is_base else BLUE
                axis.plot([factor * value[1], factor * value[2]], [place, place], color=colour, linewidth=2)
                axis.plot(factor * value[0], place, "o", color=colour, markersize=5)
                if all(it.bases[labels[0]] is row.method for it in rows):  # one baseline for all
                    axis.axvline(factor * value[0], color=GREY, linewidth=0.8, linestyle="--")
        axis.set_title(title, fontsize=10)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_yticks(places, [])
        axis.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes[0][0].set_yticks(places, [row.method.name for row in rows])
    for axis in axes[0][1 : 1 + len(labels)]:
        axis.axvline(50, color=GREY, linewidth=0.8, linestyle="--")
        axis.set_xlim(0, 100)
    if rows[0].error is not None:
        from matplotlib.ticker import ScalarFormatter

        axes[0][-1].set_xscale("log")  # a method that does not train would squeeze the others together
        for kind in (axes[0][-1].xaxis.set_major_formatter, axes[0][-1].xaxis.set_minor_formatter):
            kind(ScalarFormatter())
    figure.tight_layout()
    return figure
