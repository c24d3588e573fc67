"""What a policy does along its manifold: success of every task at every point between the tasks."""

from typing import Any

import numpy as np

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
    """Success of every task over the second one's share, and of the two against each other."""
    figure, axes = subplots(1, 2, (10.5, 3.8))
    left, right = axes[0]
    names, shares = short(front.reports[0].task_names), [point[1] for point in front.points]
    for number, name in enumerate(names):
        rows, colour = [report.tasks()[number] for report in front.reports], COLOURS[number % len(COLOURS)]
        left.plot(shares, [100 * row.rate for row in rows], color=colour, marker="o", markersize=4, label=name)
        low, high = [100 * row.low for row in rows], [100 * row.high for row in rows]
        left.fill_between(shares, low, high, color=colour, alpha=0.15, linewidth=0)
    left.set_ylim(-2, 102)
    dress(left, x=f"share of {short(front.mixed)[1]}", y="success, %  (band: 95 % Wilson interval)")
    left.legend(frameon=False, fontsize=8)
    if len(names) == 2:
        _draw_trade(right, front, names)
    right.set_visible(len(names) == 2)
    return figure


def _draw_trade(axis: Any, front: Front, names: list[str]) -> None:
    """Success of two tasks against each other, from one end of the edge to the other."""
    across, up = ([100 * report.tasks()[number].rate for report in front.reports] for number in (0, 1))
    axis.plot(across, up, color="#bbbbbb", linewidth=1, zorder=1)
    dots = axis.scatter(across, up, c=[point[1] for point in front.points], cmap="viridis", s=40, zorder=2)
    axis.figure.colorbar(dots, ax=axis, shrink=0.8, label=f"share of {short(front.mixed)[1]}")
    axis.set_xlim(-3, 103)
    axis.set_ylim(-3, 103)
    dress(axis, x=f"success in {names[0]}, %", y=f"success in {names[1]}, %")


def _draw_triangles(front: Front) -> Any:
    """A triangle for every task that was played: its success at every point."""
    names, corners = short(front.reports[0].task_names), short(front.mixed)
    places = np.array(front.points) @ CORNERS
    figure, axes = subplots(1, len(names), (4.0 * len(names) + 0.5, 3.6))
    for number, (axis, name) in enumerate(zip(axes[0], names, strict=True)):
        success = [100 * report.tasks()[number].rate for report in front.reports]
        dots = axis.scatter(*places.T, c=success, cmap="viridis", vmin=0, vmax=100, s=320, marker="h")
        for (x, y), value in zip(places, success, strict=True):
            axis.text(x, y, f"{value:.0f}", ha="center", va="center", fontsize=7, color="w" if value < 65 else "k")
        for (x, y), corner in zip(CORNERS, corners, strict=True):
            axis.annotate(corner, (x, y), (0, 14 if y else -20), textcoords="offset points", ha="center", fontsize=8)
        axis.set_xlim(-0.2, 1.2)
        axis.set_ylim(-0.25, 1.1)
        axis.set_aspect("equal")
        axis.set_axis_off()
        axis.set_title(f"success in {name}, %", fontsize=10)
        figure.colorbar(dots, ax=axis, shrink=0.8)
    return figure


def _draw_rows(front: Front) -> Any:
    """Points down, tasks across; the last row is the middle."""
    names = short(front.reports[0].task_names)
    figure, axes = subplots(1, 1, (3.5 + 0.35 * len(names), 2.5 + 0.25 * len(front.points)))
    success = np.array([[100 * row.rate for row in report.tasks()] for report in front.reports])
    heat_map(figure, axes[0][0], success, "success, %", cmap="viridis", vmin=0, vmax=100, aspect="auto")
    label(axes[0][0], names, short(front.names))
    dress(axes[0][0], x="task", y="played at", grid="")
    return figure
