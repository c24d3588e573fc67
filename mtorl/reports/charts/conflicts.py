"""Where tasks quarrel: cosines of gradients at a run's parameters, and the price of sharing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mtorl.reports.charts.base import BLUE, GREY, ORANGE, dress, heat_map, short, subplots
from mtorl.reports.many import MANY_TASKS
from mtorl.runs.conflicts import Conflicts

LARGEST = 20
"""So many bars are shown of many tasks."""


def draw_measured(found: Conflicts) -> Any:
    """For each phase cosines, how often pairs conflict, and norms; below the price of sharing, task by task."""
    phases, price = found.phases, found.price
    names = short(phases[0].tasks)
    rows, bars = len(phases) + (price is not None), len(_largest(phases[0].tasks, phases[0].norm))
    figure, axes = subplots(rows, 3, (13, rows * max(3.4, 0.8 + 0.2 * bars)))
    for phase, (heat, rate, norms) in zip(phases, axes, strict=False):
        words = f" ({phase.phase})" if len(phases) > 1 else ""
        cosines, rates = np.array(phase.cosines), 100 * np.array(phase.conflict_rate)
        np.fill_diagonal(rates, np.nan)  # no task is in conflict with itself
        heat_map(figure, heat, cosines, f"cosine of mean gradients{words}", names, cmap="RdBu_r", vmin=-1, vmax=1)
        heat_map(figure, rate, rates, "batches in conflict, %", names, cmap="Blues", vmin=0, vmax=100)
        shown = _largest(phase.tasks, phase.norm)
        _bars(norms, short(shown), [phase.norm[task] for task in shown], [BLUE] * len(shown))
        noise = [phase.norm[task] * phase.noise[task] ** 0.5 for task in shown]
        norms.barh(range(len(shown)), noise, 0.4, color=GREY, label="of that, noise")
        norms.legend(frameon=False, fontsize=7)
        dress(norms, f"norm of the mean gradient{_of_all(shown, names)}", grid="x")
    if price:
        left, *rest = axes[-1]
        shown = _largest(phases[0].tasks, price.ratios)
        ratios = [price.ratios[task] for task in shown]
        _bars(left, short(shown), ratios, [ORANGE if ratio > 1 else BLUE for ratio in ratios])
        left.axvline(1, color=GREY, linewidth=0.8)
        title = f"price of sharing, geometric mean {price.mean_ratio:.2f}{_of_all(shown, names)}"
        dress(left, title, "error, all tasks over alone", grid="x")
        for axis in rest:
            axis.set_visible(False)
    figure.tight_layout()
    return figure


def _largest(tasks: Sequence[str], values: Mapping[str, float]) -> list[str]:
    """All tasks; of many those with the largest values."""
    return list(tasks) if len(tasks) <= MANY_TASKS else sorted(tasks, key=lambda task: -values[task])[:LARGEST]


def _of_all(shown: Sequence[str], names: Sequence[str]) -> str:
    return "" if len(shown) == len(names) else f"\nthe {len(shown)} largest of {len(names)} tasks"


def _bars(axis: Any, names: Sequence[str], values: Sequence[float], colours: Sequence[str]) -> None:
    axis.barh(range(len(names)), values, color=colours)
    axis.set_yticks(range(len(names)), names, fontsize=7)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set_axisbelow(True)
