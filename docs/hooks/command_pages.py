"""Tables of commands: what the parser of each knows of its options."""

import contextlib
import io
import re
from argparse import Action
from collections.abc import Mapping
from unittest import mock

from docstrings import cell
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
    for action in sorted(parser._actions, key=lambda it: bool(it.option_strings)):  # positional ones first
        if action.dest in LEFT_OUT or action.help == SUPPRESS or action.dest.endswith(".help"):
            continue
        if type(action).__name__ == "ActionTypeHint" or action.nargs != 0 or action.option_strings:
            rows.append(_row(action, getattr(parser, "_families", {})))
    return "\n".join(row for row in rows if row)


def _row(action: Action, families: Mapping[str, str]) -> str:
    named = [it for it in action.option_strings if not it.endswith("+")]
    name = named[0] if named else action.dest.upper()
    if "CONFIG" in str(action.metavar or "") and "." not in name:
        return ""  # a file for a group of options that stand in rows of their own
    words = re.sub(r"\s*\((?:required|type|default)[:)].*", "", str(action.help or ""))
    return f"| `{name}` | {cell(_default(action, families))} | {cell(words)} |"


def _default(action: Action, families: Mapping[str, str]) -> str:
    """What holds where the option is left out; families of classes have a usual one."""
    value = action.default
    if action.dest in families:
        return f"`{families[action.dest].rpartition('.')[2]}`"
    if action.required or getattr(action, "_required", False):
        return "required"
    return "" if value is None or value == SUPPRESS else f"`{value}`"
