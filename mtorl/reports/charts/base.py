"""What all pictures share: figures without a screen, one look of axes, heat maps of tasks."""

import base64
import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl.files import write_atomically
from mtorl.reports.many import MANY_TASKS

GREY, BLUE, ORANGE = "#888888", "#0072b2", "#d55e00"
FEW_TASKS = 12
"""So many names fit beside a picture."""
BLOCKS = 40
"""At most so many blocks of tasks are in a heat map."""


def subplots(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    """A figure of that size in inches, and its axes `[rows][columns]`."""
    os.environ["MPLBACKEND"] = "Agg"  # a name that is none would end the import
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#888888",
            "svg.hashsalt": "mtorl",
        }
    )
    return plt.subplots(rows, columns, figsize=size, squeeze=False)


def picture(figure: Any) -> str:
    """A figure as a data address, so that the page needs no other file."""
    return "data:image/svg+xml;base64," + base64.b64encode(_svg(figure)).decode()


def write_picture(figure: Any, path: Path) -> None:
    """A figure as a file of its own (SVG)."""
    content = _svg(figure)
    write_atomically(path, lambda file: file.write(content))


def _svg(figure: Any) -> bytes:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def dress(axis: Any, title: str = "", x: str = "", y: str = "", grid: str = "both") -> None:
    """Gives an axis its words and its grid.

    Args:
        axis: The axis.
        title: Above it.
        x: Below it.
        y: Beside it.
        grid: Lines across `x`, `y` or `both`; none if empty.
    """
    if title:
        axis.set_title(title, fontsize=10)
    if x:
        axis.set_xlabel(x)
    if y:
        axis.set_ylabel(y)
    if grid:
        axis.grid(axis=grid, color="#dddddd", linewidth=0.7)


def heat_map(figure: Any, axis: Any, values: Any, title: str, names: Sequence[str] = (), **options: Any) -> None:
    """A matrix in colours, with a bar that says what they mean.

    Of many tasks it shows means of blocks of consecutive ones, and the title says so; pairs of a task with itself are
    left out of these.

    Args:
        figure: The figure.
        axis: The axis.
        values: `[rows, columns]`.
        title: Above it.
        names: Of rows and columns, if they are the same and few.
        options: Of matplotlib's `imshow`.
    """
    shown = np.array(values, dtype=float)
    sizes = [block_size(length) for length in shown.shape]
    if max(sizes) > 1:
        if shown.shape[0] == shown.shape[1]:
            np.fill_diagonal(shown, np.nan)
        shown = _block_means(shown, sizes)
        title += f"\nmeans of blocks of {' x '.join(dict.fromkeys(str(size) for size in sizes if size > 1))} tasks"
    figure.colorbar(axis.imshow(shown, **options), ax=axis, shrink=0.8)
    for size, length, ticks in zip(sizes, shown.shape, (axis.set_yticks, axis.set_xticks), strict=True):
        if size > 1:  # tasks are counted, not blocks
            ticks(range(0, length, 10), [str(block * size) for block in range(0, length, 10)])
    dress(axis, title, grid="")
    if 0 < len(names) <= FEW_TASKS:
        label(axis, names, names)


def block_size(count: int) -> int:
    """How many of so many rows of a heat map are shown as one."""
    return 1 if count <= MANY_TASKS else math.ceil(count / BLOCKS)


def shown_count(count: int) -> int:
    """How many rows a heat map of so many has."""
    return math.ceil(count / block_size(count))


def _block_means(values: NDArray[np.float64], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Means of blocks of so many rows and columns, of the entries that are known."""
    known = np.isfinite(values)
    total, count = np.where(known, values, 0.0), known.astype(float)
    for axis, size in enumerate(sizes):
        starts = np.arange(0, values.shape[axis], size)
        total, count = np.add.reduceat(total, starts, axis), np.add.reduceat(count, starts, axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def label(axis: Any, across: Sequence[str], down: Sequence[str]) -> None:
    """Names the columns and the rows of a heat map; a block bears the name of its first task."""
    for names, ticks, rotation in ((across, axis.set_xticks, 90), (down, axis.set_yticks, 0)):
        size = block_size(len(names))
        step = 1 if size == 1 else 2  # every second block: names of many are too close
        ticks(range(0, shown_count(len(names)), step), names[:: size * step], rotation=rotation, fontsize=7)


def line(axis: Any, points: Iterable[tuple[int, float | None]], label: str, **options: Any) -> None:
    """A curve through the points that are known; nothing if none is."""
    known = [(step, value) for step, value in points if value is not None]
    if known:
        axis.plot(*zip(*known, strict=True), **{"linewidth": 1, "label": label, **options})


def task_lines(axis: Any, names: Sequence[str], points: Sequence[Sequence[tuple[int, float | None]]]) -> None:
    """A curve for each task; of many tasks their median, with bands from 10 to 90 % of the tasks and from end to end.

    Args:
        axis: The axis.
        names: Of the tasks.
        points: Of each task steps with what is known there.
    """
    if len(names) <= MANY_TASKS:
        for name, mine in zip(names, points, strict=True):
            line(axis, mine, name)
        return
    at: dict[int, list[float]] = {}
    for step, value in (point for mine in points for point in mine):
        if value is not None:
            at.setdefault(step, []).append(value)
    if at:
        steps = sorted(at)
        least, low, middle, high, most = np.array([np.quantile(at[step], [0, 0.1, 0.5, 0.9, 1]) for step in steps]).T
        axis.fill_between(steps, least, most, color=BLUE, alpha=0.12, linewidth=0, label="all tasks")
        axis.fill_between(steps, low, high, color=BLUE, alpha=0.3, linewidth=0, label="10 to 90 % of them")
        axis.plot(steps, middle, color=BLUE, linewidth=1.5, label="median")
        axis.legend(frameon=False, fontsize=7)


def legend_beside(axis: Any, size: int = 7) -> None:
    """The legend to the right of an axis."""
    axis.legend(frameon=False, fontsize=size, loc="upper left", bbox_to_anchor=(1.01, 1))


def short(names: Iterable[str]) -> list[str]:
    """Names of tasks as they are shown."""
    return [name.removesuffix("-v3") for name in names]
