"""Compares methods over tasks and seeds: a table per task, robust means, and how sure a difference is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.files import write_atomically, write_json
from mtorl.datasets.statistics import (
    bootstrap_interval,
    delta_m,
    interquartile_mean,
    probability_of_improvement,
    wilson_interval,
)
from mtorl.envs.evaluator import EvalReport, Protocol, demonstrations_hash
from mtorl.trainers.logs import read_log
from mtorl.trainers.mask_report import MaskSummary, draw_masks, draw_moves, summarise
from mtorl.trainers.pages import page, picture, subplots
from mtorl.trainers.run import Run

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
        errors: Of actions on held-out data `[seeds, tasks]`, if they were asked for.
        protocol: How it was played.
        steps: Of optimization for one seed, over all its runs.
        milliseconds: Of a training step, median over its runs' logs.
        minutes: Of training for one seed, over all its runs; mean of the seeds.
    """

    name: str
    runs: Sequence[Sequence[Path]]
    tasks: tuple[str, ...]
    scores: Scores
    errors: Scores | None
    protocol: Protocol
    steps: int
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
        improvement: Probability that it beats each baseline, by the baseline's name; None for itself.
        gain: Relative gain of success over single-task models (delta-m); None without them, or for them.
        error: Mean error of actions, if it was measured.
        error_gain: delta-m of that error.
    """

    method: Method
    mean: Interval
    middle: Interval
    improvement: dict[str, Interval | None]
    gain: Interval | None
    error: Interval | None
    error_gain: Interval | None


def make_comparison(
    methods: Mapping[str, Sequence[Sequence[Path]]],
    out: Path,
    protocol: Protocol,
    baselines: Sequence[str] | None = None,
    single: str | None = None,
    heldout_data: str | None = None,
) -> Path:
    """Writes one HTML file that opens without a network, and the same numbers as JSON beside it.

    Args:
        methods: By the method's label, for each seed the folders of evaluated runs whose tasks together are all.
        out: The HTML file.
        protocol: Which evaluation to compare.
        baselines: The methods that others are compared to; the first method by default.
        single: The method that consists of single-task models.
        heldout_data: Data set on which the errors of actions were measured, if they were.

    Returns:
        The HTML file.
    """
    chosen = list(baselines or [next(iter(methods))])
    tasks = _tasks(methods[chosen[0]], protocol)
    found = {name: _measure(name, runs, tasks, protocol, heldout_data) for name, runs in methods.items()}
    bases, models = [found[name] for name in chosen], found[single] if single else None
    base = bases[0]
    rows = [_row(method, bases, models) for method in found.values()]
    masks, moves = _masks(found)
    content = {
        "rows": rows,
        "tasks": tasks,
        "base": base,
        "bases": bases,
        "masks": masks,
        "moves": picture(draw_moves(moves)) if moves else None,
        "single": single,
        "heldout_data": heldout_data,
        "protocol": base.protocol,
        "picture": picture(_draw(rows, bases)),
    }
    write_json(
        out.with_suffix(".json"),
        _as_json(rows, bases, single, heldout_data, {name: one.changed for name, one, _ in masks}),
    )
    html = page("comparison.html", content)
    write_atomically(out, lambda file: file.write(html))
    return out


def _tasks(runs: Sequence[Sequence[Path]], protocol: Protocol) -> tuple[str, ...]:
    return tuple(name for folder in runs[0] for name in _report(folder, protocol).task_names)


def _measure(
    name: str,
    runs: Sequence[Sequence[Path]],
    tasks: tuple[str, ...],
    protocol: Protocol,
    heldout_data: str | None,
) -> Method:
    reports = [[_report(folder, protocol) for folder in folders] for folders in runs]
    rates = [{row.task: row.rate for report in group for row in report.tasks()} for group in reports]
    if any(set(found) != set(tasks) for found in rates):
        raise InputError(
            f"runs of {name} were evaluated on other tasks than the baseline; expected {', '.join(tasks)}."
        )
    everything = [folder for folders in runs for folder in folders]
    entries = [row for folder in everything for row in read_log(folder) if row["kind"] == "training"]
    errors = None
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
        errors,
        protocol,
        sum(int(report.source["step"]) for report in reports[0]),
        1000 / float(np.median([row["steps_per_second"] for row in entries])),
        sum(sum(_seconds(folder)) for folder in everything) / 60 / len(runs),
    )


def _errors(folder: Path, heldout_data: str) -> dict[str, float]:
    return Run(folder).action_errors(heldout_data)["tasks"]


def _report(folder: Path, protocol: Protocol) -> EvalReport:
    """The evaluation of the last checkpoint with just that protocol, in the suite as the run knows it."""
    run, shown = Run(folder), demonstrations_hash(protocol)
    suite = (run.suite().unseen() if protocol.unseen_tasks else run.suite()).describe()
    found = [
        it
        for it in run.reports(protocol.name)
        if (it.protocol, it.suite, it.source.get("demonstrations_sha256")) == (protocol, suite, shown)
        and "act_with" not in it.source
    ]
    if not found:
        raise InputError(f"{folder} has no evaluation with {protocol}. Evaluate it first.")
    return found[0]


def _seconds(folder: Path) -> list[float]:
    """Seconds of training between two entries of a run's log."""
    entries = [row for row in read_log(folder) if row["kind"] == "training"]
    steps = np.diff([0, *[row["step"] for row in entries]])
    return [count / row["steps_per_second"] for count, row in zip(steps, entries, strict=True)]


def _row(method: Method, bases: Sequence[Method], models: Method | None) -> Row:
    def with_interval(statistic: Callable[..., float], *samples: Scores) -> Interval:
        return statistic(*samples), *bootstrap_interval(statistic, *samples)

    def mean(scores: Scores) -> float:
        return float(scores.mean())

    def error_gain(scores: Scores, reference: Scores) -> float:
        return delta_m(scores, reference, lower_is_better=True)

    scores, errors = method.scores, method.errors
    compared = models if models is not method else None
    return Row(
        method,
        with_interval(mean, scores),
        with_interval(interquartile_mean, scores),
        {
            base.name: None if method is base else with_interval(probability_of_improvement, scores, base.scores)
            for base in bases
        },
        with_interval(delta_m, scores, compared.scores)
        if compared and (compared.scores.min(0) > 0).any()  # in every draw of seeds some task has a relative gain
        else None,
        with_interval(mean, errors) if errors is not None else None,
        with_interval(error_gain, errors, compared.errors)
        if compared and errors is not None and compared.errors is not None
        else None,
    )


def _as_json(
    rows: Sequence[Row],
    bases: Sequence[Method],
    single: str | None,
    heldout_data: str | None,
    changed: Mapping[str, float],
) -> dict[str, Any]:
    base = bases[0]
    return {
        "baselines": [base.name for base in bases],
        "single_task_models": single,
        "heldout_data": heldout_data,
        "tasks": list(base.tasks),
        "methods": [
            {
                "name": row.method.name,
                "seeds": len(row.method.scores),
                "episodes": row.method.protocol.goals,
                "mean": row.mean,
                "interquartile_mean": row.middle,
                "probability_of_improvement": row.improvement,
                "delta_m": row.gain,
                "action_error": row.error,
                "action_error_delta_m": row.error_gain,
                "milliseconds_per_step": row.method.milliseconds,
                "step_over_baseline": row.method.milliseconds / base.milliseconds,
                "steps": row.method.steps,
                "minutes": row.method.minutes,
                "masks_changed": changed.get(row.method.name),
                "tasks": {task: row.method.task(number) for number, task in enumerate(base.tasks)},
                "scores": row.method.scores.tolist(),
                "action_errors": None if row.method.errors is None else row.method.errors.tolist(),
                "runs": [str(folder) for folders in row.method.runs for folder in folders],
            }
            for row in rows
        ],
    }


def _masks(methods: Mapping[str, Method]) -> tuple[list[tuple[str, MaskSummary, str]], list[tuple[str, Moves]]]:
    """Summary and picture of the masks of each method's first run, and how they moved."""
    summaries = [(name, one) for name, method in methods.items() for one in summarise(Run(method.runs[0][0]))]
    pictures = [(_title(name, one), one, picture(draw_masks(one))) for name, one in summaries]
    return pictures, [(_title(name, one), one.moves) for name, one in summaries if one.moves]


def _title(name: str, summary: MaskSummary) -> str:
    return name if summary.phase == "policy" else f"{name}, {summary.phase}"


def _draw(rows: Sequence[Row], bases: Sequence[Method]) -> Any:
    """Interquartile means, probabilities of improvement and errors of actions, as points with intervals."""
    panels: list[tuple[str, float, list[Interval | None]]] = [
        ("interquartile mean of success, %", 100, [row.middle for row in rows]),
        *(
            (f"probability of improvement over {base.name}, %", 100, [row.improvement[base.name] for row in rows])
            for base in bases
        ),
    ]
    if rows[0].error is not None:
        panels.append(("squared error of actions, thousandths", 1000, [row.error for row in rows]))
    figure, axes = subplots(1, len(panels), (3 + 4 * len(panels), 0.8 + 0.28 * len(rows)))
    places = range(len(rows))
    for axis, (title, factor, values) in zip(axes[0], panels, strict=True):
        for row, place, value in zip(rows, places, values, strict=True):
            if value is not None:
                colour = GREY if row.method in bases else BLUE
                axis.plot([factor * value[1], factor * value[2]], [place, place], color=colour, linewidth=2)
                axis.plot(factor * value[0], place, "o", color=colour, markersize=5)
                if row.method is bases[0]:
                    axis.axvline(factor * value[0], color=GREY, linewidth=0.8, linestyle="--")
        axis.set_title(title, fontsize=10)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_yticks(places, [])
        axis.grid(axis="x", color="#dddddd", linewidth=0.7)
    axes[0][0].set_yticks(places, [row.method.name for row in rows])
    for axis in axes[0][1 : 1 + len(bases)]:
        axis.axvline(50, color=GREY, linewidth=0.8, linestyle="--")
        axis.set_xlim(0, 100)
    if rows[0].error is not None:
        from matplotlib.ticker import ScalarFormatter

        axes[0][-1].set_xscale("log")  # a method that does not train would squeeze the others together
        for kind in (axes[0][-1].xaxis.set_major_formatter, axes[0][-1].xaxis.set_minor_formatter):
            kind(ScalarFormatter())
    figure.tight_layout()
    return figure
