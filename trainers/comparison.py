"""Compares methods over tasks and seeds: a table per task, robust means, and how sure a difference is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.files import write_atomically, write_json
from mtorl.datasets.statistics import (
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
    wilson_interval,
)
from mtorl.envs.evaluator import EvalReport, ProtocolName
from mtorl.trainers.logs import read_log
from mtorl.trainers.pages import page, picture, subplots
from mtorl.trainers.run import Run

BLUE, GREY = "#0072b2", "#888888"


@dataclass(frozen=True)
class Row:
    """One method.

    Attributes:
        name: Its label.
        scores: Success `[seeds, tasks]`.
        episodes: Episodes per task and seed.
        milliseconds: Of a training step, median over its runs' logs.
        minutes: Of training, mean of its runs.
        mean: Over seeds and tasks, with its bootstrap interval.
        middle: The interquartile mean, with its bootstrap interval.
        improvement: Probability that it beats the baseline, with its bootstrap interval; None for the baseline.
    """

    name: str
    scores: NDArray[np.float64]
    episodes: int
    milliseconds: float
    minutes: float
    mean: tuple[float, float, float]
    middle: tuple[float, float, float]
    improvement: tuple[float, float, float] | None

    def task(self, number: int) -> tuple[float, float, float]:
        """Success in a task over all seeds, with its Wilson interval."""
        trials = self.episodes * len(self.scores)
        successes = round(float(self.scores[:, number].sum()) * self.episodes)
        return successes / trials, *wilson_interval(successes, trials)


def make_comparison(
    methods: Mapping[str, Sequence[Path]],
    out: Path,
    protocol: ProtocolName,
    goals: int,
    baseline: str | None = None,
) -> Path:
    """Writes one HTML file that opens without a network, and the same numbers as JSON beside it.

    Args:
        methods: Folders of evaluated runs, one for each seed, by the method's label.
        out: The HTML file.
        protocol: Which evaluation to compare.
        goals: Of how many goals per task.
        baseline: The method that others are compared to; the first by default.

    Returns:
        The HTML file.
    """
    first = next(iter(methods))
    chosen = baseline or first
    reports = {name: [_report(folder, protocol, goals) for folder in runs] for name, runs in methods.items()}
    tasks = reports[first][0].task_names
    for name, found in reports.items():
        for report in found:
            if report.task_names != tasks or report.protocol != reports[first][0].protocol:
                raise InputError(f"runs of {name} and {first} were evaluated on different tasks or in different ways.")
    scores = {name: np.array([[row.rate for row in it.tasks()] for it in found]) for name, found in reports.items()}
    rows = [
        _row(name, scores[name], goals, methods[name], None if name == chosen else scores[chosen]) for name in methods
    ]
    base = next(row for row in rows if row.name == chosen)
    content = {
        "rows": rows,
        "tasks": tasks,
        "base": base,
        "protocol": reports[first][0].protocol,
        "picture": picture(_draw(rows, base)),
    }
    write_json(out.with_suffix(".json"), _as_json(rows, tasks, base, methods))
    html = page("comparison.html", content)
    write_atomically(out, lambda file: file.write(html))
    return out


def _report(folder: Path, protocol: ProtocolName, goals: int) -> EvalReport:
    found = [it for it in Run(folder).reports(protocol) if it.protocol.goals == goals]
    if not found:
        raise InputError(f"{folder} has no {protocol} evaluation of {goals} goals. Evaluate it first.")
    return found[0]


def _row(
    name: str, scores: NDArray[np.float64], goals: int, runs: Sequence[Path], base: NDArray[np.float64] | None
) -> Row:
    def mean(it: NDArray[np.float64]) -> float:
        return float(it.mean())

    improvement = None
    if base is not None:
        improvement = (
            probability_of_improvement(scores, base),
            *bootstrap_interval(probability_of_improvement, scores, base),
        )
    rates = [row["steps_per_second"] for run in runs for row in read_log(run) if row["kind"] == "training"]
    each = [sum(_seconds(run)) / 60 for run in runs]
    return Row(
        name,
        scores,
        goals,
        1000 / float(np.median(rates)),
        float(np.mean(each)),
        (mean(scores), *bootstrap_interval(mean, scores)),
        (interquartile_mean(scores), *bootstrap_interval(interquartile_mean, scores)),
        improvement,
    )


def _seconds(folder: Path) -> list[float]:
    """Seconds of training between two entries of a run's log."""
    entries = [row for row in read_log(folder) if row["kind"] == "training"]
    steps = np.diff([0, *[row["step"] for row in entries]])
    return [count / row["steps_per_second"] for count, row in zip(steps, entries, strict=True)]


def _as_json(
    rows: Sequence[Row], tasks: Sequence[str], base: Row, methods: Mapping[str, Sequence[Path]]
) -> dict[str, Any]:
    return {
        "baseline": base.name,
        "methods": [
            {
                "name": row.name,
                "seeds": len(row.scores),
                "episodes": row.episodes,
                "mean": row.mean,
                "interquartile_mean": row.middle,
                "probability_of_improvement": row.improvement,
                "milliseconds_per_step": row.milliseconds,
                "step_over_baseline": row.milliseconds / base.milliseconds,
                "minutes": row.minutes,
                "tasks": {task: row.task(number) for number, task in enumerate(tasks)},
                "scores": row.scores.tolist(),
                "runs": [str(folder) for folder in methods[row.name]],
            }
            for row in rows
        ],
    }


def _draw(rows: Sequence[Row], base: Row) -> Any:
    """Interquartile means, and probabilities of improvement, as points with intervals."""
    figure, axes = subplots(1, 2, (11, 0.8 + 0.28 * len(rows)))
    left, right = axes[0]
    places = range(len(rows))
    for axis, values, title in (
        (left, [row.middle for row in rows], "interquartile mean of success, %"),
        (right, [row.improvement for row in rows], f"probability of improvement over {base.name}, %"),
    ):
        for place, value in zip(places, values, strict=True):
            if value is not None:
                colour = GREY if rows[place] is base else BLUE
                axis.plot([100 * value[1], 100 * value[2]], [place, place], color=colour, linewidth=2)
                axis.plot(100 * value[0], place, "o", color=colour, markersize=5)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.grid(axis="x", color="#dddddd", linewidth=0.7)
    left.set_yticks(places, [row.name for row in rows])
    right.set_yticks(places, [])
    left.axvline(100 * base.middle[0], color=GREY, linewidth=0.8, linestyle="--")
    right.axvline(50, color=GREY, linewidth=0.8, linestyle="--")
    right.set_xlim(0, 100)
    figure.tight_layout()
    return figure
