"""Success of the tasks at points of a manifold between them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtorl.envs.results import EvalReport
from mtorl.reports.charts.base import dress, heat_map, label, short, subplots
from mtorl.reports.entries import COLOURS

HEIGHT = 3**0.5 / 2


def draw_front(reports: Sequence[EvalReport]) -> Any:
    """Along the edge of two tasks, over the triangle of three, and as a table of colours for more.

    Args:
        reports: Evaluations of one run at points, in their order.
    """
    tasks = len(reports[0].task_names)
    return _draw_edge(reports) if tasks == 2 else _draw_triangles(reports) if tasks == 3 else _draw_table(reports)


def _points(reports: Sequence[EvalReport]) -> Any:
    return np.array([report.source.point for report in reports])


def _rates(reports: Sequence[EvalReport]) -> Any:
    """Success `[points, T]`, in percent."""
    return np.array([[100 * row.rate for row in report.tasks()] for report in reports])


def _draw_edge(reports: Sequence[EvalReport]) -> Any:
    """Both tasks over the share of the first, with intervals; and one over the other."""
    names, shares, rates = short(reports[0].task_names), 100 * _points(reports)[:, 0], _rates(reports)
    figure, axes = subplots(1, 2, (11, 3.6))
    left, right = axes[0]
    for task, name in enumerate(names):
        rows, colour = [report.tasks()[task] for report in reports], COLOURS[task]
        left.plot(shares, rates[:, task], marker="o", markersize=4, color=colour, label=name)
        low, high = [100 * row.low for row in rows], [100 * row.high for row in rows]
        left.fill_between(shares, low, high, color=colour, alpha=0.15, linewidth=0)
    dress(left, x=f"share of {names[0]}, %", y="episodes with success, %")
    left.set_ylim(-2, 102)
    left.legend(frameon=False, fontsize=8)
    right.plot(rates[:, 0], rates[:, 1], color="#888888", linewidth=0.8, zorder=1)
    dots = right.scatter(rates[:, 0], rates[:, 1], c=shares, cmap="viridis", zorder=2)
    figure.colorbar(dots, ax=right, label=f"share of {names[0]}, %")
    right.set_xlim(-2, 102)
    right.set_ylim(-2, 102)
    dress(right, x=f"success in {names[0]}, %", y=f"success in {names[1]}, %")
    figure.tight_layout()
    return figure


def _draw_triangles(reports: Sequence[EvalReport]) -> Any:
    """A triangle for each task, with the tasks at its corners."""
    names, shares, rates = short(reports[0].task_names), _points(reports), _rates(reports)
    corners = np.array([[0.5, HEIGHT], [0, 0], [1, 0]])
    places = shares @ corners
    figure, axes = subplots(1, 3, (13, 3.6))
    for task, axis in enumerate(axes[0]):
        dots = axis.scatter(*places.T, c=rates[:, task], cmap="viridis", vmin=0, vmax=100, s=260, marker="h")
        for (x, y), rate in zip(places, rates[:, task], strict=True):
            axis.text(
                x, y, f"{rate:.0f}", ha="center", va="center", fontsize=7, color="white" if rate < 70 else "black"
            )
        for name, (x, y) in zip(names, corners, strict=True):
            axis.text(x, y + (0.09 if y else -0.09), name, ha="center", va="center", fontsize=8)
        axis.set_xlim(-0.2, 1.2)
        axis.set_ylim(-0.15, HEIGHT + 0.15)
        axis.set_aspect("equal")
        axis.set_axis_off()
        dress(axis, f"success in {names[task]}, %", grid="")
        figure.colorbar(dots, ax=axis, shrink=0.8)
    figure.tight_layout()
    return figure


def _draw_table(reports: Sequence[EvalReport]) -> Any:
    """A row for each point, a column for each task."""
    names = short(reports[0].task_names)
    reports = sorted(reports, key=lambda report: report.settings.point == "middle")  # after the corners
    points = [report.settings.point or "" for report in reports]
    tasks = len(names)
    figure, axes = subplots(1, 1, (2.5 + 0.3 * tasks, 1.5 + 0.24 * len(points)))
    axis = axes[0][0]
    heat_map(figure, axis, _rates(reports), "success at the points, %", cmap="viridis", vmin=0, vmax=100, aspect="auto")
    label(axis, names, [name if name == "middle" else names[int(name.split("-")[1]) - 1] for name in points])
    dress(axis, x="task that is played", y="corner", grid="")
    return figure
