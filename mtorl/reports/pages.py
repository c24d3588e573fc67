"""HTML pages that open without a network, with their pictures inside."""

import shlex
from importlib.resources import files

from mtorl.measures import Measure
from mtorl.schema import Document


def page(name: str, content: Document) -> bytes:
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
    environment.filters["shown"] = lambda it, digits=0: it.text(digits, " ")
    environment.filters["interval"] = lambda it, digits=0: it.interval(digits, ", ", " ")
    environment.filters["signed"] = _signed
    return environment.get_template(name).render(content).encode()


def _signed(difference: Measure, digits: int = 0) -> tuple[str, str, str]:
    """A difference and the ends of its interval, each with its sign; shares in percentage points."""
    numbers = (difference.value, difference.low, difference.high)
    texts = [difference.scale.text(it, digits).rstrip("%") for it in numbers]
    return tuple(f"+{text}" if it is not None and it > 0 else text for it, text in zip(numbers, texts, strict=True))  # type: ignore[return-value]
