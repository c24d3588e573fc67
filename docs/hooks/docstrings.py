"""The docstrings of this package, taken apart: what a page shows of a class comes from its header alone."""

import inspect
import re
import sys
from dataclasses import dataclass, field

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Yields")


@dataclass
class Docstring:
    """One docstring in parts, each as Markdown.

    Attributes:
        summary: Its first paragraph.
        body: The others, but for those below.
        paper: What follows `Source:`.
        deviations: The numbered deviations from the paper, in their order.
        arguments: What is said of each argument.
    """

    summary: str = ""
    body: list[str] = field(default_factory=list)
    paper: str = ""
    deviations: list[str] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> Docstring:
    """Takes a docstring apart."""
    found = Docstring()
    for paragraph in re.split(r"\n\s*\n(?! )|\n(?=Deviations? )", inspect.cleandoc(text)):
        section = re.match(r"(\w+):\n", paragraph)
        if section and section[1] in SECTIONS:
            if section[1] == "Args":
                found.arguments |= _items(paragraph)
        elif paragraph.startswith("Source:"):
            found.paper = " ".join(paragraph.removeprefix("Source:").split())
        elif re.match(r"Deviations?\b", paragraph):
            found.deviations += _deviations(paragraph)
        elif not found.summary:
            found.summary = " ".join(paragraph.split())
        else:
            found.body.append(paragraph)
    return found


def of_class(kind: type) -> Docstring:
    """The docstring of a class, with the arguments of those that it hands `**options` on to.

    Deviations and the paper may stand in the header of its file.
    """
    found = parse(kind.__doc__ or "")
    module = parse(inspect.getdoc(sys.modules[kind.__module__]) or "")
    found.deviations = found.deviations or module.deviations
    found.paper = found.paper or module.paper
    for parent in kind.__mro__[1:]:
        for name, words in parse(parent.__doc__ or "").arguments.items():
            found.arguments.setdefault(name, words)
    return found


def of_module(kind: type) -> Docstring:
    """The header of the file in which a class stands."""
    return parse(inspect.getdoc(sys.modules[kind.__module__]) or "")


def _items(paragraph: str) -> dict[str, str]:
    parts = re.split(r"^    (\*{0,2}\w+)(?: \([^)]*\))?:", paragraph, flags=re.MULTILINE)
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return {name.lstrip("*"): " ".join(words.split()) for name, words in pairs}


def _deviations(paragraph: str) -> list[str]:
    numbered = re.split(r"^(?:Deviation )?\d+[.:] ", paragraph, flags=re.MULTILINE)
    found = [" ".join(words.split()) for words in numbered[1:]]
    return [words[0].upper() + words[1:] for words in found]


def cell(words: str) -> str:
    """Words as one cell of a table: what is no code must not end it."""
    parts = " ".join(words.split()).split("`")
    return "`".join(part if number % 2 else part.replace("|", "\\|") for number, part in enumerate(parts))
