"""HTML pages that open without a network, with their pictures inside."""

import base64
import io
import os
import shlex
from importlib.resources import files
from typing import Any


def page(name: str, content: dict[str, Any]) -> bytes:
    """A page.

    Args:
        name: File of its template beside this module.
        content: Variables of the template.
    """
    from jinja2 import Environment, FunctionLoader

    loader = FunctionLoader(lambda it: (files("mtorl.reports.templates") / it).read_text())
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["shell"] = shlex.join
    environment.filters["percent"] = lambda value: "-" if value is None else f"{100 * value:.0f} %"
    environment.filters["percent1"] = lambda value: f"{100 * value:.1f} %"
    return environment.get_template(name).render(content).encode()


def picture(figure: Any) -> str:
    """A figure as a data address, so that the page needs no other file."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


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
