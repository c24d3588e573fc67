"""The words of a command line, before the parser sees them: spelled as people are used to."""

import contextlib
import itertools
import re
from collections.abc import Sequence

import yaml

from mtorl.documents import inline_yaml

LISTS = ("data", "shares", "tasks", "suite.tasks", "suite.environments", "baselines", "observations")
"""Options that take one or more words: `--tasks reach-v3 push-v3`."""
NUMBERS = ("goals",)
"""Options that take one number or several: `--goals 50 51`."""
NAMED = ("suite.environments", "tasks")
"""Those of them that may be mappings as well: `{slow: HalfCheetah-v5}`, `{"Push the puck": push-v3}`."""


def respelled(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """A command line as the parser reads it: underscores, lists, configuration files first, flags with a value.

    Args:
        words: What was typed.
        flags: Names of the options that are true or false.
    """
    return _config_first(_complete_flags(_gather_lists(_with_underscores(words)), flags))


def _with_underscores(arguments: Sequence[str]) -> list[str]:
    """Options as they are spelled here, however people are used to spell them."""

    def plain(argument: str) -> str:
        option, equals, value = argument.partition("=")
        return re.sub(r"(?<=\w)-(?=\w)", "_", option) + equals + value

    return [plain(argument) if argument.startswith("--") else argument for argument in arguments]


def _config_first(arguments: list[str]) -> list[str]:
    """Moves configuration files to the front, in their order: what is typed beats what is in a file."""
    configs: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--config":
            configs += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            (configs if word.startswith("--config=") else rest).append(word)
    return [*configs, *rest]


def _gather_lists(arguments: list[str]) -> list[str]:
    """`--data a b` becomes `--data=["a", "b"]`; what is already a list stays."""
    gathered: list[str] = []
    place = 0
    while place < len(arguments):
        option, equals, value = arguments[place].partition("=")
        place += 1
        if option.startswith("--") and option[2:] in NUMBERS and not equals:
            several = [*itertools.takewhile(str.isdigit, arguments[place:])]
            gathered.append(f"{option}=[{','.join(several)}]" if len(several) > 1 else arguments[place - 1])
            place += len(several) if len(several) > 1 else 0
            continue
        if not (option.startswith("--") and option[2:] in LISTS):
            gathered.append(arguments[place - 1])
            continue
        values = [value] if equals else []
        while place < len(arguments) and not arguments[place].startswith("--") and not equals:
            values.append(arguments[place])
            place += 1
        named = option[2:] in NAMED and values[:1] and values[0].lstrip().startswith("{")
        gathered.append(f"{option}={values[0] if named else _list(values)}" if values else option)
    return gathered


def _complete_flags(arguments: list[str], flags: Sequence[str]) -> list[str]:
    """`--quiet` becomes `--quiet=true` unless a value follows."""
    options = {f"--{flag}" for flag in flags}
    following = [*arguments[1:], ""]
    return [
        f"{word}=true" if word in options and after.lower() not in ("true", "false", "yes", "no") else word
        for word, after in zip(arguments, following, strict=False)  # there may be none
    ]


def _list(values: Sequence[str]) -> str:
    """Words as a list of texts, whatever they would be to YAML; one that is a list already, or null, is one."""
    if values == ["null"]:
        return "null"
    if len(values) == 1 and values[0].lstrip().startswith("["):
        with contextlib.suppress(yaml.YAMLError):
            return inline_yaml(yaml.load(values[0], yaml.BaseLoader))
    return inline_yaml(values)
