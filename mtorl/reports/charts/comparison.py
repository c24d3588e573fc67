"""Methods side by side."""

from collections.abc import Sequence
from typing import Any

from mtorl.reports.charts.base import BLUE, GREY, dress, subplots
from mtorl.reports.methods import Interval
from mtorl.reports.standings import Row


def draw_comparison(rows: Sequence[Row]) -> Any:
    """Success, probabilities of improvement, normalised scores and errors of actions, as points with intervals."""
    panels, labels = _panels(rows), list(rows[0].bases)
    figure, axes = subplots(1, len(panels), (3 + 4 * len(panels), 0.8 + 0.28 * len(rows)))
    places = range(len(rows))
    for axis, (title, factor, values) in zip(axes[0], panels, strict=True):
        for row, place, value in zip(rows, places, values, strict=True):
            if value is not None:
                _draw_interval(axis, place, [factor * end for end in value], GREY if row.is_base else BLUE)
                if all(other.bases[labels[0]] is row.method for other in rows):  # one baseline for all
                    axis.axvline(factor * value[0], color=GREY, linewidth=0.8, linestyle="--")
        dress(axis, title, grid="x")
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_yticks(places, [])
    axes[0][0].set_yticks(places, [row.method.name for row in rows])
    for axis in axes[0][1 : 1 + len(labels)]:
        axis.axvline(50, color=GREY, linewidth=0.8, linestyle="--")
        axis.set_xlim(0, 100)
    if rows[0].error is not None:
        _logarithmic(axes[0][-1])
    figure.tight_layout()
    return figure


def _panels(rows: Sequence[Row]) -> list[tuple[str, float, list[Interval | None]]]:
    """Title, unit and values of each picture."""
    judged = rows[0].method.judged
    panels: list[tuple[str, float, list[Interval | None]]] = [
        (f"interquartile mean of {judged.axis}", judged.factor, [row.middle for row in rows]),
        *(
            (f"probability of improvement over {label}, %", 100, [row.improvement[label] for row in rows])
            for label in rows[0].bases
        ),
    ]
    if rows[0].score is not None:
        panels.append(("return-normalised score, %", 100, [row.score for row in rows]))
    if rows[0].error is not None:
        panels.append(("squared error of actions, thousandths", 1000, [row.error for row in rows]))
    return panels


def _draw_interval(axis: Any, place: int, value: Sequence[float], colour: str) -> None:
    middle, low, high = value
    axis.plot([low, high], [place, place], color=colour, linewidth=2)
    axis.plot(middle, place, "o", color=colour, markersize=5)


def _logarithmic(axis: Any) -> None:
    """A method that does not train would squeeze the others together."""
    from matplotlib.ticker import ScalarFormatter

    axis.set_xscale("log")
    for kind in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
        kind(ScalarFormatter())
