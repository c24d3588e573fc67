"""What can be chosen on the command line: the members of every family, read from their classes."""

import importlib
import inspect
import re
from typing import NamedTuple

from mtorl import checks

FAMILIES = {
    "agents": ("mtorl.agents", "Agent", "sequence policy"),
    "networks": ("mtorl.agents.networks", "Backbone", "feed-forward network"),
    "heads": ("mtorl.agents.heads", "Head", "head"),
    "balancers": ("mtorl.trainers.balancers", "Balancer", "own step"),
    "sharing": ("mtorl.trainers.sharing", "Sharing", "fixed"),
    "groupers": ("mtorl.trainers.groupers", "TaskGrouper", "grouper"),
    "trackers": ("mtorl.trainers.trackers", "Tracker", "tracker"),
    "suites": ("mtorl.envs", "Suite", "suite"),
    "importers": ("mtorl.datasets.importers", "Importer", "importer"),
    "exporters": ("mtorl.datasets.exporters", "Exporter", "exporter"),
}
"""Module and base class of each family, and what members without an abstract class in between are."""


class Member(NamedTuple):
    """One class that can be named on the command line."""

    name: str
    kind: str
    """The abstract class it is derived from, in words."""
    line: str
    """First sentence of its docstring."""
    needs: str
    """What it asks for beyond what all members get."""
    paper: str
    """First author, title and year, as far as the docstring names a source."""


def load(*families: str) -> None:
    """Imports all members of these families: faces show them without loading them, but options find what is loaded."""
    for family in families:
        module = importlib.import_module(FAMILIES[family][0])
        for name in module.__all__:
            getattr(module, name)


def members(family: str) -> list[Member]:
    """The concrete classes of a family, sorted by kind and name.

    Raises:
        InputError: There is no such family.
    """
    checks.one_of("family", family, list(FAMILIES))
    path, base, direct = FAMILIES[family]
    root = getattr(importlib.import_module(path), base)
    found = [_describe(kind, root, direct) for kind in classes(family)]
    return sorted(found, key=lambda member: (member.kind, member.name))


def classes(family: str) -> list[type]:
    """The concrete classes of a family, as its face names them."""
    path, base, _ = FAMILIES[family]
    module = importlib.import_module(path)
    shown = [getattr(module, name) for name in module.__all__]
    root = getattr(module, base)
    return [it for it in shown if inspect.isclass(it) and issubclass(it, root) and not inspect.isabstract(it)]


def _describe(kind: type, root: type, direct: str) -> Member:
    text = inspect.getdoc(kind) or ""
    first = re.split(r"(?<=\.)\s", text, maxsplit=1)[0].rstrip(".")
    source = re.search(r"Source: (.*?)(?:\n\n|\n?$|(?<=\d{4})[,.;])", text, re.DOTALL)
    parents = [parent for parent in kind.__mro__[1:] if inspect.isabstract(parent) and parent is not root]
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", parents[0].__name__).lower() if parents else direct
    return Member(
        kind.__name__,
        words,
        " ".join(first.split()),
        getattr(kind, "needs", ""),
        " ".join(source[1].split()) if source else "",
    )
