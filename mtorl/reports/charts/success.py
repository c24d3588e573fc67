"""Success of every task."""

from collections.abc import Mapping, Sequence
from typing import Any

from mtorl.envs.results import TaskResult
from mtorl.reports.charts.base import dress, short, subplots
from mtorl.reports.entries import RunEntry, distinct_specs

MARKS = {"expert": ("D", "#444444"), "random": ("x", "#444444")}
"""Marker and colour of each reference policy."""


def draw_bars(entries: Sequence[RunEntry], references: Mapping[str, Sequence[TaskResult]]) -> Any:
    """Horizontal bars: success of every task, with 95 % intervals and the reference rows as marks."""
    tasks = entries[0].report.task_names
    figure, axes = subplots(1, 1, (9, max(2.0, 0.3 + len(tasks) * (0.25 + 0.16 * len(entries)))))
    axis = axes[0][0]
    for number, entry in enumerate(entries):
        _draw_run(axis, entry, number, len(entries))
    _draw_data(axis, entries, tasks)
    lines = range(len(tasks))
    for name, rows in references.items():
        mark, colour = MARKS[name]
        axis.scatter([100 * row.rate for row in rows], lines, marker=mark, s=28, color=colour, label=name, zorder=5)
    axis.set_yticks(list(lines), short(tasks))
    axis.invert_yaxis()
    axis.set_xlim(-2, 103)
    dress(axis, x="episodes with success at any step, %  (bars: 95 % Wilson interval)", grid="x")
    axis.set_axisbelow(True)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    return figure


def _draw_run(axis: Any, entry: RunEntry, number: int, count: int) -> None:
    """The bars of one run of so many."""
    thickness, rows = 0.8 / count, entry.rows
    below = [max(100 * (row.rate - row.low), 0) for row in rows]
    above = [max(100 * (row.high - row.rate), 0) for row in rows]
    axis.barh(
        [place - 0.4 + (number + 0.5) * thickness for place in range(len(rows))],
        [100 * row.rate for row in rows],
        thickness * 0.9,
        color=entry.colour,
        alpha=0.85,
        label=entry.name,
        xerr=[below, above],
        error_kw={"ecolor": "#333333", "elinewidth": 1, "capsize": 2},
    )


def _draw_data(axis: Any, entries: Sequence[RunEntry], tasks: Sequence[str]) -> None:
    """Success in the data that runs were trained on."""
    specs = distinct_specs(entries)
    for number, (names, spec) in enumerate(specs):
        shift = 0.0 if len(specs) == 1 else -0.4 + (number + 0.5) * 0.8 / len(specs)
        rates = dict(zip(spec.task_names, spec.success_rate, strict=True))
        known = [(place, rates[task]) for place, task in enumerate(tasks) if task in rates]
        axis.scatter(
            [100 * rate for _, rate in known],
            [place + shift for place, _ in known],
            marker="|",
            s=120 / len(specs),
            color="#111111",
            label="data" if len(specs) == 1 else f"data of {names}",
            zorder=4,
        )
