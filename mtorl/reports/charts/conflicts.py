"""Where tasks quarrel: cosines of gradients at a run's parameters, and the price of sharing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtorl.reports.charts.base import BLUE, GREY, ORANGE, dress, heat_map, short, subplots
from mtorl.runs.conflicts import Conflicts


def draw_measured(found: Conflicts) -> Any:
    """For each phase cosines, how often pairs conflict, and norms; below the price of sharing, task by task."""
    phases, price = found.phases, found.price
    names = short(phases[0].tasks)
    rows = len(phases) + (price is not None)
    figure, axes = subplots(rows, 3, (13, rows * max(3.4, 0.8 + 0.2 * len(names))))
    for phase, (heat, rate, norms) in zip(phases, axes, strict=False):
        words = f" ({phase.phase})" if len(phases) > 1 else ""
        cosines, rates = np.array(phase.cosines), 100 * np.array(phase.conflict_rate)
        np.fill_diagonal(rates, np.nan)  # no task is in conflict with itself
        heat_map(figure, heat, cosines, f"cosine of mean gradients{words}", names, cmap="RdBu_r", vmin=-1, vmax=1)
        heat_map(figure, rate, rates, "batches in conflict, %", names, cmap="Blues", vmin=0, vmax=100)
        _bars(norms, names, [phase.norm[task] for task in phase.tasks], [BLUE] * len(names))
        noise = [phase.norm[task] * phase.noise[task] ** 0.5 for task in phase.tasks]
        norms.barh(range(len(names)), noise, 0.4, color=GREY, label="of that, noise")
        norms.legend(frameon=False, fontsize=7)
        dress(norms, "norm of the mean gradient", grid="x")
    if price:
        left, *rest = axes[-1]
        ratios = [price.ratios[task] for task in phases[0].tasks]
        _bars(left, names, ratios, [ORANGE if ratio > 1 else BLUE for ratio in ratios])
        left.axvline(1, color=GREY, linewidth=0.8)
        dress(left, f"price of sharing, geometric mean {price.mean_ratio:.2f}", "error, all tasks over alone", grid="x")
        for axis in rest:
            axis.set_visible(False)
    figure.tight_layout()
    return figure


def _bars(axis: Any, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> None:
    axis.barh(range(len(names)), values, color=colours)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_axisbelow(True)
