"""Where tasks quarrel at the parameters that a run ended with, and what they pay for sharing these."""

from typing import Any

import numpy as np

from mtorl.reports.charts.base import BLUE, GREY, ORANGE, dress, heat_map, short, subplots
from mtorl.runs.conflicts import Conflicts


def draw_quarrels(found: Conflicts) -> Any:
    """Cosines of all pairs of tasks in every phase; and each task's price of sharing, if it was measured."""
    tasks, columns = len(found.phases[0].tasks), len(found.phases) + bool(found.price)
    figure, axes = subplots(1, columns, (4.6 * columns, max(3.2, 1.2 + 0.22 * tasks)))
    for axis, phase in zip(axes[0], found.phases, strict=False):
        values = np.array(phase.cosines)
        np.fill_diagonal(values, np.nan)
        title = f"{phase.phase}: {phase.negative_pairs:.0%} of pairs in conflict"
        heat_map(figure, axis, values, title, short(phase.tasks), cmap="RdBu_r", vmin=-1, vmax=1)
    if found.price is not None:
        axis, ratios = axes[0][-1], found.price.ratios
        colours = [ORANGE if ratio > 1 else BLUE for ratio in ratios.values()]
        axis.barh(range(tasks), [ratio - 1 for ratio in ratios.values()], left=1, color=colours)
        axis.set_yticks(range(tasks), short(ratios), fontsize=7)
        axis.invert_yaxis()
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter("{x:g}")
        axis.axvline(1, color=GREY, linewidth=0.8)
        title = f"error for all tasks over error alone, mean {found.price.mean_ratio:.2f}"
        dress(axis, title, "above 1: sharing costs", grid="x")
    figure.tight_layout()
    return figure
