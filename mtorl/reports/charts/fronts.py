"""What a policy does along its manifold: what every task is judged by at every point between the tasks."""

from typing import Any

import numpy as np

from mtorl.envs.task_result import TaskResult
from mtorl.measures import SUCCESS, Scale
from mtorl.reports.charts.base import dress, heat_map, label, short, subplots
from mtorl.reports.entries import COLOURS
from mtorl.runs.fronts import Front

CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]])
"""Of the triangle of three tasks."""


def draw_front(front: Front) -> Any:
    """An edge for two tasks, a triangle of points for three, rows of corners for more."""
    draw = {2: _draw_edge, 3: _draw_triangles}.get(len(front.mixed), _draw_rows)
    figure = draw(front)
    figure.tight_layout()
    return figure


def _draw_edge(front: Front) -> Any:
    """What every task is judged by over the second one's share, and the two against each other."""
    figure, axes = subplots(1, 2, (10.5, 3.8))
    left, right = axes[0]
    names, shares = short(front.reports[0].task_names), [point[1] for point in front.points]
    parts = _alike(front)
    sides = {scale: left.twinx() if place else left for place, scale in enumerate(parts)}
    for scale, axis in sides.items():
        for number in parts[scale]:
            rows, colour = [report.tasks()[number] for report in front.reports], COLOURS[number % len(COLOURS)]
            look = {"color": colour, "marker": "o", "markersize": 4, "label": names[number]}
            axis.plot(shares, _values(front, number), **look)
            ends = [(_shown(row.measure.low, row), _shown(row.measure.high, row)) for row in rows]
            axis.fill_between(shares, *zip(*ends, strict=True), color=colour, alpha=0.15, linewidth=0)
        if scale is SUCCESS:
            axis.set_ylim(-2, 102)
        dress(axis, y=f"{scale.axis}  (band: 95 % interval)", grid="" if axis is not left else "both")
        axis.legend(frameon=False, fontsize=8, loc="lower right" if axis is not left else "best")
    left.set_xlabel(f"share of {short(front.mixed)[1]}")
    if len(names) == 2:
        _draw_trade(right, front, names)
    right.set_visible(len(names) == 2)
    return figure


def _draw_trade(axis: Any, front: Front, names: list[str]) -> None:
    """Success of two tasks against each other, from one end of the edge to the other."""
    across, up = (_values(front, number) for number in (0, 1))
    axis.plot(across, up, color="#bbbbbb", linewidth=1, zorder=1)
    dots = axis.scatter(across, up, c=[point[1] for point in front.points], cmap="viridis", s=40, zorder=2)
    axis.figure.colorbar(dots, ax=axis, shrink=0.8, label=f"share of {short(front.mixed)[1]}")
    scales = [row.measure.scale for row in front.reports[0].tasks()]
    for scale, limit in zip(scales, (axis.set_xlim, axis.set_ylim), strict=True):
        if scale is SUCCESS:
            limit(-3, 103)
    labels = [_titled(scale, name) for scale, name in zip(scales, names, strict=True)]
    dress(axis, x=labels[0], y=labels[1])


def _draw_triangles(front: Front) -> Any:
    """A triangle for every task that was played: its success at every point."""
    names, corners = short(front.reports[0].task_names), short(front.mixed)
    places = np.array(front.points) @ CORNERS
    figure, axes = subplots(1, len(names), (4.0 * len(names) + 0.5, 3.6))
    for number, (axis, name) in enumerate(zip(axes[0], names, strict=True)):
        values, scale = _values(front, number), front.reports[0].tasks()[number].measure.scale
        low, high = (0, 100) if scale is SUCCESS else (min(values), max(values))
        dots = axis.scatter(*places.T, c=values, cmap="viridis", vmin=low, vmax=high, s=320, marker="h")
        for (x, y), value in zip(places, values, strict=True):
            dark = value < low + 0.65 * (high - low)
            axis.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=7, color="w" if dark else "k")
        for (x, y), corner in zip(CORNERS, corners, strict=True):
            axis.annotate(corner, (x, y), (0, 14 if y else -20), textcoords="offset points", ha="center", fontsize=8)
        axis.set_xlim(-0.2, 1.2)
        axis.set_ylim(-0.25, 1.1)
        axis.set_aspect("equal")
        axis.set_axis_off()
        axis.set_title(_titled(scale, name), fontsize=10)
        figure.colorbar(dots, ax=axis, shrink=0.8)
    return figure


def _draw_rows(front: Front) -> Any:
    """Points down, tasks across; the last row is the middle."""
    names, parts = short(front.reports[0].task_names), _alike(front)
    size = (3.5 * len(parts) + 0.35 * len(names), 2.5 + 0.25 * len(front.points))
    figure, axes = subplots(1, len(parts), size)
    for axis, (scale, places) in zip(axes[0], parts.items(), strict=True):
        values = np.array([_values(front, number) for number in places]).T
        low, high = (0, 100) if scale is SUCCESS else (values.min(), values.max())
        heat_map(figure, axis, values, scale.axis, cmap="viridis", vmin=low, vmax=high, aspect="auto")
        label(axis, [names[number] for number in places], short(front.names))
        dress(axis, x="task", y="played at", grid="")
    return figure


def _alike(front: Front) -> dict[Scale, list[int]]:
    """Places of the tasks that are judged alike."""
    found: dict[Scale, list[int]] = {}
    for number, row in enumerate(front.reports[0].tasks()):
        found.setdefault(row.measure.scale, []).append(number)
    return found


def _titled(scale: Scale, name: str) -> str:
    """What one task is judged by, for its own axis."""
    return f"{scale.name} in {name}" + (f", {scale.unit}" if scale.unit else "")


def _values(front: Front, number: int) -> list[float]:
    """What a task is judged by at every point, as it is shown."""
    return [_shown(row.measure.value, row) for row in (report.tasks()[number] for report in front.reports)]


def _shown(value: float | None, row: TaskResult) -> float:
    """A number of a task as it is shown; its mean where nothing is known of an interval."""
    return row.measure.scale.factor * (row.measure.value if value is None else value)
