"""Masks: what tasks have in common, where weights are kept, how masks moved."""

from collections.abc import Sequence
from typing import Any

import torch

from mtorl.reports.charts.base import BLUE, GREY, ORANGE, dress, heat_map, label, short, shown_count, subplots
from mtorl.reports.masks import MaskSummary


def draw_masks(summary: MaskSummary) -> Any:
    """Overlaps of all pairs of tasks, densities per matrix and task, and what all or none of the tasks keep."""
    names = short(summary.tasks)
    layers = [name.removesuffix(".weight").removeprefix("backbone.") for name in summary.densities]
    figure, axes = subplots(1, 3, (15, max(1.2 + 0.22 * max(shown_count(len(names)), len(layers)), 3.2)))
    left, middle, right = axes[0]
    overlap = summary.overlap.clone()
    overlap.fill_diagonal_(float("nan"))
    heat_map(figure, left, overlap.numpy(), "weights that both tasks keep, share", cmap="viridis")
    label(left, names, names)
    densities = torch.stack(list(summary.densities.values())).numpy()
    title = "weights kept, share, per matrix and task"
    heat_map(figure, middle, densities, title, cmap="viridis", aspect="auto", vmax=1)
    label(middle, names, layers)
    places = range(len(layers))
    right.barh(places, [100 * share for share in summary.everyone.values()], color=BLUE, label="all tasks keep")
    right.barh(places, [-100 * share for share in summary.nobody.values()], color=ORANGE, label="no task keeps")
    right.set_yticks(places, layers, fontsize=7)
    right.set_ylim(len(layers) - 0.5, -0.5)
    dress(right, "share of the matrix, %", grid="")
    right.axvline(0, color=GREY, linewidth=0.8)
    right.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return figure


def draw_moves(moves: Sequence[tuple[str, list[tuple[int, float]]]]) -> Any:
    """How far masks are from where they began, over training, one curve per label."""
    figure, axes = subplots(1, 1, (7, 3.2))
    axis = axes[0][0]
    for name, points in moves:
        steps, shares = zip(*points, strict=True)
        axis.plot(steps, [100 * share for share in shares], marker=".", label=name)
    dress(axis, "how far masks are from where they began, %", "training step", grid="")
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return figure
