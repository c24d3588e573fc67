"""HTML pages that open without a network, with their pictures inside."""

import shlex
from importlib.resources import files

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
    return environment.get_template(name).render(content).encode()
