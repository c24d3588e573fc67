"""Tables of commands: what the parser of each knows of its options."""

import contextlib
import io
import re
from unittest import mock

from jsonargparse import SUPPRESS, ArgumentParser

from mtorl.commands.main import main

LEFT_OUT = ("help", "config", "print_config")


def parser_of(*words: str) -> ArgumentParser:
    """The parser that answers `mtorl WORDS --help`."""
    parsers: list[ArgumentParser] = []
    with (
        mock.patch.object(ArgumentParser, "format_help", lambda parser: parsers.append(parser) or ""),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        main([*words, "--help"])
    return parsers[-1]


def options(*words: str) -> str:
    """A table of the options of a command."""
    parser = parser_of(*words)
    rows = ["| option | default | meaning |", "| --- | --- | --- |"]
    for action in parser._actions:
        if action.dest in LEFT_OUT or action.help == SUPPRESS or action.dest.endswith(".help"):
            continue
        if type(action).__name__ == "ActionTypeHint" or action.nargs != 0 or action.option_strings:
            rows.append(_row(action))
    return "\n".join(row for row in rows if row)


def _row(action: object) -> str:
    named = [it for it in action.option_strings if not it.endswith("+")]  # type: ignore[attr-defined]
    name = named[0] if named else action.dest.upper()  # type: ignore[attr-defined]
    if "CONFIG" in str(action.metavar or "") and "." not in name:  # type: ignore[attr-defined]
        return ""
    default = "required" if getattr(action, "required", False) or getattr(action, "_required", False) else ""
    value = action.default  # type: ignore[attr-defined]
    if not default and value is not None and value != SUPPRESS:
        default = f"`{value['class_path'].rpartition('.')[2] if isinstance(value, dict) and 'class_path' in value else value}`"
    words = re.sub(r"\s*\((?:required|type|default)[:)].*", "", str(action.help or ""))  # type: ignore[attr-defined]
    return f"| `{name}` | {_cell(default)} | {_cell(words)} |"


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")
