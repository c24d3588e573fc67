"""How options are spelled where they are not as usual: in labels, in names of files, on the command line.

An option says all of it where it is declared, as a field of a frozen dataclass:

    context: ContextMode = field(default="exact", metadata=spelled(remark="{} context", word="{}", rank=5))
"""

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from mtorl.schema import Kind

Template = str | Mapping[Any, str]
"""A text with `{}` for the value, or a text for some values. Where it is empty, nothing is said."""


@dataclass(frozen=True)
class Spelling:
    """How an option is spelled.

    Attributes:
        kind: What reports hold; None for what they do not hold as an option.
        always: It is named even with its usual value, the default.
        remark: In labels.
        word: In names of files.
        argument: Whether it is an option of `mtorl evaluate`; a text if it has another name there.
        place: In labels and command lines; options of the same place stand in the order of their declaration.
        rank: Place in names of files, and among what decides which of several evaluations is shown. None: neither.
        order: Of its values the one that is smallest in these terms is shown.
        of_agents: Whether it is all the same to the scripted expert and random actions.
    """

    kind: Kind | None = None
    always: bool = False
    remark: Template = ""
    word: Template = ""
    argument: bool | str = True
    place: int = 0
    rank: int | None = None
    order: Callable[[Any], Any] = lambda value: "" if value is None else value
    of_agents: bool = False


class Option(NamedTuple):
    """An option with its value."""

    name: str
    value: Any
    usual: bool
    """Whether nothing is to be said of it."""
    spelling: Spelling

    def text(self, template: Template) -> str:
        """A remark or word for the value."""
        if self.usual:
            return ""
        return template.format(self.value) if isinstance(template, str) else template.get(self.value, "")

    def implied(self) -> "Option":
        """The same where another option says it already: it is left to labels."""
        return self._replace(spelling=replace(self.spelling, word="", argument=False))


def spelled(kind: Kind | None = None, **spelling: Any) -> dict[str, Spelling]:
    """Metadata of a field that is an option; see `Spelling`."""
    return {"spelling": Spelling(kind, **spelling)}


def spellings(kind: Any) -> dict[str, Spelling]:
    """Those of a dataclass, or of a value of one, by the options' names."""
    return {it.name: it.metadata["spelling"] for it in fields(kind) if "spelling" in it.metadata}


def options_of(value: Any) -> list[Option]:
    """The options of a dataclass's value, as they are declared."""
    defaults = {it.name: it.default for it in fields(value)}
    found = ((name, getattr(value, name), spelling) for name, spelling in spellings(value).items())
    return [
        Option(name, given, given == defaults[name] and not spelling.always, spelling)
        for name, given, spelling in found
    ]


def ranked(options: Iterable[Option]) -> list[Option]:
    """In the order in which they stand in names of files; those without a rank are left out."""
    return sorted((it for it in options if it.spelling.rank is not None), key=lambda it: it.spelling.rank or 0)


def remarks(options: Iterable[Option]) -> list[str]:
    """What is unusual, in words."""
    return [text for it in _placed(options) if (text := it.text(it.spelling.remark))]


def command_line(options: Iterable[Option]) -> str:
    """As options of a command."""
    words = []
    for name, value, usual, spelling in _placed(options):
        if spelling.argument and not usual:
            text = str(value).lower() if isinstance(value, bool) else shlex.quote(str(value))
            words.append(f"--{name if spelling.argument is True else spelling.argument} {text}")
    return " ".join(words)


def _placed(options: Iterable[Option]) -> list[Option]:
    return sorted(options, key=lambda it: it.spelling.place)
