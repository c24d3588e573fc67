"""Success of every task, or its return."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtorl.datasets.spec import DataSpec
from mtorl.envs.task_result import TaskResult
from mtorl.measures import RETURN, SCORE, SUCCESS, Measure, Scale, normalised
from mtorl.reports.charts.base import GREY, dress, short, subplots
from mtorl.reports.entries import RunEntry, distinct_specs, hardest_tasks
from mtorl.reports.many import MANY_TASKS

MARKS = {"expert": ("D", "#444444"), "random": ("x", "#444444")}
"""Marker and colour of each reference policy."""
AXES = {
    SUCCESS: "episodes with success at any step, %  (bars: 95 % Wilson interval)",
    RETURN: "mean return  (bars: 95 % interval)",
    SCORE: "normalised score, not comparable to D4RL  (bars: 95 % interval)",
}


def draw_bars(entries: Sequence[RunEntry], references: Mapping[str, Sequence[TaskResult]]) -> Any:
    """Horizontal bars: what every task is judged by, with 95 % intervals and the reference rows as marks.

    Tasks with success and those without stand below each other, each with an axis of their own. Of many tasks the
    hardest are shown.
    """
    parts = [*hardest_tasks(entries).items()]
    heights = [max(2.0, 0.3 + len(tasks) * (0.25 + 0.16 * len(entries))) for _, tasks in parts]
    figure, axes = subplots(len(parts), 1, (9, sum(heights)))
    for (axis,), (scale, tasks) in zip(axes, parts, strict=True):
        _draw_part(axis, entries, references, tasks, scale)
    if len(parts) > 1:
        figure.tight_layout()
    return figure


def draw_ranks(entries: Sequence[RunEntry], references: Mapping[str, Sequence[TaskResult]]) -> Any:
    """What many tasks are judged by: a curve for each run and reference over its own tasks, the hardest first.

    Returns:
        The figure; None if no tasks that are judged alike are many.
    """
    scales = [scale for scale, rows in entries[0].report.scales.items() if len(rows) > MANY_TASKS]
    if not scales:
        return None
    figure, axes = subplots(1, len(scales), (9 if len(scales) == 1 else 13, 3.4))
    for axis, scale in zip(axes[0], scales, strict=True):
        names = {row.task for row in entries[0].report.scales[scale]}
        curves = [(entry.name, [*entry.rows], entry.colour, "-") for entry in entries]
        curves += [(name, [*rows], GREY, "--") for name, rows in references.items()]
        for name, found, colour, style in curves:
            values = sorted(scale.factor * row.on(scale).value for row in found if row.task in names)
            places = np.arange(1, len(values) + 1)
            axis.step(places, values, where="mid", label=name, color=colour, linestyle=style, linewidth=1.8)
        if scale is SUCCESS:
            axis.set_ylim(-2, 102)
        dress(axis, x="tasks, from the hardest to the easiest of each", y=scale.axis)
        axis.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    return figure


def _draw_part(
    axis: Any,
    entries: Sequence[RunEntry],
    references: Mapping[str, Sequence[TaskResult]],
    tasks: Sequence[str],
    scale: Scale,
) -> None:
    """The tasks that are judged alike."""
    for number, entry in enumerate(entries):
        found = {row.task: row for row in entry.rows}
        measures = [found[task].on(scale) for task in tasks]
        _draw_run(axis, entry, measures, number, len(entries))
    _draw_data(axis, entries, tasks, scale)
    lines = range(len(tasks))
    for name, rows in references.items():
        mark, colour = MARKS[name]
        found = {row.task: row for row in rows}
        values = [scale.factor * found[task].on(scale).value for task in tasks]
        axis.scatter(values, lines, marker=mark, s=28, color=colour, label=name, zorder=5)
    axis.set_yticks(list(lines), short(tasks))
    axis.set_ylim(len(tasks) - 0.5, -0.5)
    if scale is SUCCESS:
        axis.set_xlim(-2, 103)
    dress(axis, x=AXES[scale], grid="x")
    axis.set_axisbelow(True)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)


def _draw_run(axis: Any, entry: RunEntry, measures: Sequence[Measure], number: int, count: int) -> None:
    """The bars of one run of so many."""
    thickness = 0.8 / count
    factor = measures[0].scale.factor
    ends = [(it.value if it.low is None else it.low, it.value if it.high is None else it.high) for it in measures]
    axis.barh(
        [place - 0.4 + (number + 0.5) * thickness for place in range(len(measures))],
        [factor * it.value for it in measures],
        thickness * 0.9,
        color=entry.colour,
        alpha=0.85,
        label=entry.name,
        xerr=[
            [max(factor * (it.value - low), 0) for it, (low, _) in zip(measures, ends, strict=True)],
            [max(factor * (high - it.value), 0) for it, (_, high) in zip(measures, ends, strict=True)],
        ],
        error_kw={"ecolor": "#333333", "elinewidth": 1, "capsize": 2},
    )


def _draw_data(axis: Any, entries: Sequence[RunEntry], tasks: Sequence[str], scale: Scale) -> None:
    """Success in the data that runs were trained on; of tasks without it, the median return."""
    specs = distinct_specs(entries)
    bounds = entries[0].report.return_bounds
    for number, (names, spec) in enumerate(specs):
        shift = 0.0 if len(specs) == 1 else -0.4 + (number + 0.5) * 0.8 / len(specs)
        known = [(place, _of_data(spec, task, scale, bounds)) for place, task in enumerate(tasks)]
        known = [it for it in known if it[1] is not None]
        label = "data" if scale is SUCCESS else "median of data"
        axis.scatter(
            [value for _, value in known],
            [place + shift for place, _ in known],
            marker="|",
            s=120 / len(specs),
            color="#111111",
            label=label if len(specs) == 1 else f"{label} of {names}",
            zorder=4,
        )


def _of_data(spec: DataSpec, task: str, scale: Scale, bounds: Mapping[str, tuple[float, float]]) -> float | None:
    """Where recorded episodes of a task stand on an axis; None if there are none."""
    if task not in spec.task_names:
        return None
    place = spec.task_names.index(task)
    if scale is SUCCESS:
        return scale.factor * spec.success_rate[place]
    median = np.array(spec.return_quantiles[place][10])
    return float(normalised(median, bounds[task]) if scale is SCORE else median)
