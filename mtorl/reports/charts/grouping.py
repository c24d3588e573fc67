"""How close tasks are, and their groups."""

from itertools import accumulate
from typing import Any

import numpy as np

from mtorl.datasets.grouping import Grouping
from mtorl.reports.charts.base import block_size, heat_map, label, short, shown_count, subplots


def draw_grouping(grouping: Grouping) -> Any:
    """A heat map of the affinity of all pairs of tasks, group by group, with a frame around each group."""
    order = sorted(range(len(grouping.labels)), key=lambda task: grouping.labels[task])
    names = short(grouping.task_names[task] for task in order)
    affinity = np.array(grouping.affinity)[np.ix_(order, order)]
    np.fill_diagonal(affinity, np.nan)  # of no task to itself: it would take all the colours
    side = max(3.6, 1.6 + 0.2 * shown_count(len(names)))
    figure, axes = subplots(1, 1, (side * 1.2, side))
    axis = axes[0][0]
    title = f"{grouping.method.split('(')[0]}: affinity of tasks, {grouping.count} groups"
    heat_map(figure, axis, affinity, title, cmap="viridis")
    label(axis, names, names)
    sizes = [grouping.labels.count(group) for group in range(grouping.count)]
    block = block_size(len(names))
    for start, size in zip(accumulate(sizes, initial=0), sizes, strict=False):
        corner = (start / block - 0.5, start / block - 0.5)
        axis.add_patch(_frame(corner, size / block))
    figure.tight_layout()
    return figure


def _frame(corner: tuple[float, float], size: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, size, size, fill=False, edgecolor="#d55e00", linewidth=2, clip_on=False)
