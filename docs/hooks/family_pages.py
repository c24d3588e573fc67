"""Pages of families: every member with its paper, options and deviations, from docstrings and constructors."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin

from docstrings import Docstring, cell, of_class, of_module
from jsonargparse import ArgumentParser

from mtorl.arguments import HANDED_OVER
from mtorl.families import FAMILIES, Member, classes, members

ROOT = Path(__file__).parent.parent.parent
OPTIONS = {
    "agents": "mtorl train --agent {}",
    "networks": "mtorl train --agent.network {}",
    "heads": "mtorl train --agent.head {}",
    "balancers": "mtorl train --balancer {}",
    "sharing": "mtorl train --sharing {}",
    "groupers": "mtorl group RUN --method {}",
    "suites": "mtorl collect --suite {}",
    "importers": "mtorl import {}",
    "exporters": "mtorl export {}",
    "trackers": "mtorl train --tracker {}",
}
"""How a member is named on the command line; those of importers and exporters are written small."""


def page(family: str) -> str:
    """All members of a family: first a table, then one section each."""
    kinds = {kind.__name__: kind for kind in classes(family)}
    found = members(family)
    parts = [_table(found)]
    told: set[str] = set()
    for member in found:
        kind = kinds[member.name]
        parts.append(_section(family, kind, member, shared=kind.__module__ in told))
        told.add(kind.__module__)
    return "\n\n".join(parts)


def _table(found: list[Member]) -> str:
    kinds = len({member.kind for member in found}) > 1
    heads = ["name", *(["kind"] if kinds else []), "what it does"]
    rows = [[f"[`{it.name}`](#{it.name.lower()})", *([it.kind] if kinds else []), f"{cell(it.line)}."] for it in found]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, ["---"] * len(heads), *rows])


def _section(family: str, kind: type, member: Member, shared: bool) -> str:
    text, header = of_class(kind), of_module(kind)
    parts = [f"## {member.name} {{ #{member.name.lower()} }}", text.summary, *text.body]
    tables = [part for part in header.body if "|---" in part or "| ---" in part]
    if not shared:
        parts += tables
    if text.paper:
        parts.append(f"**Paper:** {text.paper}")
    parts += _combinations(kind, member)
    if family in OPTIONS:
        name = member.name.lower() if family in ("importers", "exporters") else member.name
        parts.append(f"**Command line:** `{OPTIONS[family].format(name)}`")
    parts += [_options(kind, text), _deviations(text), f"**File:** `{_file(kind)}`"]
    return "\n\n".join(part for part in parts if part)


def _combinations(kind: type, member: Member) -> Iterator[str]:
    """What it asks of the rest, as far as its class says so."""
    words = []
    if member.needs:
        words.append(member.needs)
    if getattr(kind, "spreads", True) is False:
        words.append("one process")
    if getattr(kind, "next_observations", False) is True:
        words.append("what follows each step of the data")
    if words:
        yield f"**Needs:** {'; '.join(words)}."


def _options(kind: type, text: Docstring) -> str:
    rows = ["| option | values | default | meaning |", "| --- | --- | --- | --- |"]
    for parameter in parameters(kind):
        default = "required" if parameter.default is parameter.empty else f"`{_value(parameter.default)}`"
        meaning = cell(text.arguments.get(parameter.name, ""))
        rows.append(f"| `{parameter.name}` | {_type(parameter.annotation)} | {default} | {meaning} |")
    return "\n".join(rows) if len(rows) > 2 else ""


def parameters(kind: type) -> list[inspect.Parameter]:
    """The options of a class: of its constructor, and of those that this hands `**options` on to."""
    found: dict[str, inspect.Parameter] = {}
    for owner in kind.__mro__:
        if "__init__" in vars(owner):
            for name, parameter in inspect.signature(owner.__init__).parameters.items():
                found.setdefault(name, parameter)
    options = ArgumentParser().add_class_arguments(kind, skip={name for name in HANDED_OVER if name in found})
    return [found[name] for name in options]


def _type(annotation: object) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    if get_origin(annotation) is not None and all(isinstance(it, str) for it in get_args(annotation)):
        return ", ".join(f"`{it}`" for it in get_args(annotation))
    words = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
    words = re.sub(r"\b(?:typing|collections\.abc|inspect|mtorl|numpy|torch)(?:\.[a-z_0-9]+)*\.(?=[A-Z])", "", words)
    words = re.sub(r"Literal\[([^\]]*)\]", lambda it: it[1].replace("'", ""), words)
    return f"`{words}`"


def _value(default: object) -> str:
    return str(default) if not callable(default) else getattr(default, "__name__", "")


def _deviations(text: Docstring) -> str:
    if not text.deviations:
        return ""
    lines = [f"{number}. {words}" for number, words in enumerate(text.deviations, 1)]
    return "**Deviations from the paper:**\n\n" + "\n".join(lines)


def _file(kind: type) -> str:
    path = Path(inspect.getfile(kind)).resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


def public(face: str) -> str:
    """Directives of mkdocstrings for the public names of a package that are no members of a family."""
    module = importlib.import_module(face)
    shown = {kind for family in FAMILIES for kind in classes(family)}
    homes = _homes(face)
    parts = []
    for name in sorted(module.__all__, key=str.lower):
        value = getattr(module, name)
        if not (inspect.ismodule(value) or (inspect.isclass(value) and value in shown)):
            home = homes.get(name, face)
            parts.append(f"## {name}\n\n`from {face} import {name}`\n\n::: {home}.{name}")
    return "\n\n".join(parts)


def _homes(face: str) -> dict[str, str]:
    """The modules in which the public names of a package are defined, as its `__init__.pyi` says."""
    module = importlib.import_module(face)
    stub = Path(str(module.__file__)).with_suffix(".pyi")
    lines = [it for it in ast.parse(stub.read_text()).body if isinstance(it, ast.ImportFrom)]
    return {alias.name: f"{face}.{line.module}" for line in lines for alias in line.names if line.module}


def docstring(path: str) -> str:
    """The header of a module without its first paragraph, in whose place the page has words of its own."""
    return (inspect.getdoc(importlib.import_module(path)) or "").partition("\n\n")[2]
