"""What all pictures share: figures without a screen, one look of axes, heat maps of tasks."""

import base64
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mtorl.files import write_atomically

GREY, BLUE, ORANGE = "#888888", "#0072b2", "#d55e00"
FEW_TASKS = 12
"""So many names fit beside a picture."""


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

    Args:
        figure: The figure.
        axis: The axis.
        values: `[rows, columns]`.
        title: Above it.
        names: Of rows and columns, if they are the same and few.
        options: Of matplotlib's `imshow`.
    """
    figure.colorbar(axis.imshow(values, **options), ax=axis, shrink=0.8)
    dress(axis, title, grid="")
    if 0 < len(names) <= FEW_TASKS:
        label(axis, names, names)


def label(axis: Any, across: Sequence[str], down: Sequence[str]) -> None:
    """Names the columns and the rows of a heat map."""
    axis.set_xticks(range(len(across)), across, rotation=90, fontsize=7)
    axis.set_yticks(range(len(down)), down, fontsize=7)


def line(axis: Any, points: Iterable[tuple[int, float | None]], label: str, **options: Any) -> None:
    """A curve through the points that are known; nothing if none is."""
    known = [(step, value) for step, value in points if value is not None]
    if known:
        axis.plot(*zip(*known, strict=True), **{"linewidth": 1, "label": label, **options})


def legend_beside(axis: Any, size: int = 7) -> None:
    """The legend to the right of an axis."""
    axis.legend(frameon=False, fontsize=size, loc="upper left", bbox_to_anchor=(1.01, 1))


def short(names: Iterable[str]) -> list[str]:
    """Names of tasks as they are shown."""
    return [name.removesuffix("-v3") for name in names]
