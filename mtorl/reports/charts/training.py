"""What happened while runs were trained: losses, success on training goals, conflicts, routing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl.measures import SUCCESS
from mtorl.reports.charts.base import FEW_TASKS, dress, heat_map, legend_beside, line, short, subplots, task_lines
from mtorl.reports.entries import RunEntry
from mtorl.trainers.entries import ConflictsEntry, EvaluationEntry, RelationsEntry, RoutingEntry, TrainingEntry


def draw_curves(entries: Sequence[RunEntry]) -> Any:
    """Training loss, and what runs are judged by on training goals, over steps; a line for each model."""
    parts = [part for entry in entries for part in entry.parts]
    scales = dict.fromkeys(it for part in parts for row in part.log.of(EvaluationEntry) for it in row.judged)
    figure, axes = subplots(1, 2 if len(scales) < 2 else 3, (11 if len(scales) < 2 else 16, 3.2))
    left, *others = axes[0]
    if not scales:  # nothing to see if no evaluation was asked for
        others.pop().set_visible(False)
    for entry, number, part in ((one, *it) for one in entries for it in enumerate(one.parts)):
        losses = [(row.step, row.loss) for row in part.log.of(TrainingEntry)]
        judged = [(row.step, row.judged) for row in part.log.of(EvaluationEntry)]
        name = f"{entry.name}, each of {len(entry.parts)} models" if len(entry.parts) > 1 else entry.name
        look = {"color": entry.colour, "linewidth": 1.5 if len(entry.parts) == 1 else 0.8}
        line(left, losses, "_" if number else name, **look)  # matplotlib lists no labels that begin so
        for right, scale in zip(others, scales, strict=True):
            points = [(step, scale.factor * it[scale] if scale in it else None) for step, it in judged]
            line(right, points, "_" if number else name, **look, marker="o", markersize=3)
    _scale(left)
    dress(left, x="training step", y="training loss of the policy, mean of tasks")
    for right, scale in zip(others, scales, strict=True):
        if scale is SUCCESS:
            right.set_ylim(-2, 102)
        dress(right, x="training step", y=f"{scale.name} on training goals{f', {scale.unit}' if scale.unit else ''}")
    left.legend(frameon=False)
    return figure


def _scale(axis: Any) -> None:
    """Logarithmic if everything on it is positive."""
    positive = all(value > 0 for curve in axis.lines for value in curve.get_ydata())
    axis.set_yscale("log" if positive else "linear")


def conflict_records(entry: RunEntry) -> list[ConflictsEntry]:
    """What the monitor saw of the run's last phase, which is the policy's."""
    records = entry.log.of(ConflictsEntry)
    return [row for row in records if row.phase == records[-1].phase]


def mean_cosines(entry: RunEntry, records: Sequence[ConflictsEntry]) -> NDArray[np.float64]:
    """Mean over records of the cosine of every pair of tasks; NaN for pairs that no batch held."""
    place = {name: number for number, name in enumerate(entry.task_names)}
    total, count = np.zeros((len(place), len(place))), np.zeros((len(place), len(place)))
    for row in records:
        places = np.ix_(*[[place[name] for name in row.tasks]] * 2)
        total[places] += row.cosines
        count[places] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def draw_conflicts(entry: RunEntry) -> Any:
    """Cosines between task gradients, the share of pairs that conflict, and weights and norms per task over steps."""
    records, training = conflict_records(entry), entry.log.of(TrainingEntry)
    phase, names = records[0].phase, short(entry.task_names)
    figure, axes = subplots(1, 4, (15, 3.4))
    heat, share, weights, norms = axes[0]
    cosines = mean_cosines(entry, records)
    heat_map(figure, heat, cosines, "mean cosine of task gradients", names, cmap="RdBu_r", vmin=-1, vmax=1)
    line(share, [(row.step, 100 * row.negative_pairs) for row in records], "", color=entry.colour, linewidth=1.5)
    share.set_ylim(-2, 102)
    tasks = entry.task_names
    task_lines(norms, names, [[(row.step, row.norm.get(task)) for row in records] for task in tasks])
    keys = [f"{phase}/weight/{task}" for task in tasks]
    task_lines(weights, names, [[(row.step, row.numbers.get(key)) for row in training] for key in keys])
    _scale(norms)  # none is positive where tasks have values of their own for all that is shared
    dress(share, "pairs of tasks in conflict, %", "training step")
    dress(weights, "weight of each task in the step", "training step")
    dress(norms, "norm of each task's gradient", "training step")
    if len(names) <= FEW_TASKS:
        legend_beside(norms)
    figure.tight_layout()
    return figure


def draw_routing(entry: RunEntry) -> Any:
    """How far apart tasks route at the end, and how sharply each does, over steps."""
    records, names = entry.log.of(RoutingEntry), short(entry.task_names)
    figure, axes = subplots(1, 2, (9.5, 3.8))
    heat, entropy = axes[0]
    title = f"distance between the routing of tasks, step {records[-1].step:,}"
    heat_map(figure, heat, last_distances(entry, records), title, names, cmap="viridis", vmin=0)
    task_lines(entropy, names, [[(row.step, row.entropy.get(task)) for row in records] for task in entry.task_names])
    entropy.set_ylim(-0.02, 1.02)
    dress(entropy, "entropy of each task's routing", "training step")
    if len(names) <= FEW_TASKS:
        legend_beside(entropy)
    figure.tight_layout()
    return figure


def draw_relations(entry: RunEntry) -> Any:
    """What tasks take from each other's heads at the end, and how uncertain actions are, over steps."""
    records, names = entry.log.of(RelationsEntry), short(entry.task_names)
    figure, axes = subplots(1, 2, (9.5, 3.8))
    heat, deviation = axes[0]
    weights = np.array(records[-1].weights)
    np.fill_diagonal(weights, np.nan)  # nobody takes from itself
    title = f"what each task (row) takes from others, step {records[-1].step:,}"
    heat_map(figure, heat, weights, title, names, cmap="viridis", vmin=0)
    task_lines(
        deviation, names, [[(row.step, row.deviation.get(task)) for row in records] for task in entry.task_names]
    )
    deviation.set_yscale("log")
    dress(deviation, "standard deviation of each task's actions", "training step")
    if len(names) <= FEW_TASKS:
        legend_beside(deviation)
    figure.tight_layout()
    return figure


def last_distances(entry: RunEntry, records: Sequence[RoutingEntry]) -> NDArray[np.float64]:
    """The newest distance `[T, T]` of every two tasks that were in a batch together; NaN for others."""
    place = {name: number for number, name in enumerate(entry.task_names)}
    distances = np.full((len(place), len(place)), np.nan)
    for row in records:
        present = [place[name] for name in row.tasks]
        distances[np.ix_(present, present)] = row.distances
    return distances
