"""What all commands do: a parser from a signature, and objects from a command line."""

from collections.abc import Callable
from typing import Any

from mtorl import InputError
from mtorl.arguments import Parser, describe_instead
from mtorl.families import classes


def parser_of(command: str, function: Callable[..., Any], skip: set[str] | None = None) -> Parser:
    """The parser of a command whose options are a function's parameters.

    Args:
        command: Its name.
        function: The function; the first paragraph of its docstring describes the command.
        skip: Parameters that are no options.
    """
    parser = Parser(prog=f"mtorl {command}", description=(function.__doc__ or "").split("\n\n")[0])
    parser.add_function(function, skip)
    return parser


def objects(parser: Parser, arguments: list[str]) -> dict[str, Any]:
    """What a command line says, as objects by the options' names."""
    values = vars(parser.instantiate(parser.parse_args(arguments)))
    found = {name.lstrip("\u200b"): value for name, value in values.items()}  # it marks options such as `keys`
    found.pop("config", None)
    return found


def kind_of(family: str, usage: str, arguments: list[str]) -> type | None:
    """The member of a family that is named first; None if help was asked for, which is then printed.

    Args:
        family: Its name in `FAMILIES`.
        usage: What help says; `{}` stands for the names of the members.
        arguments: Of the command.

    Raises:
        InputError: There is no such member.
    """
    kinds = {kind.__name__.lower(): kind for kind in classes(family)}
    if not arguments:
        describe_instead(kinds=list(kinds))
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage.format(", ".join(kinds)))
        return None
    if arguments[0] not in kinds:
        raise InputError(f"unknown kind of data {arguments[0]!r}; expected one of {', '.join(kinds)}.")
    return kinds[arguments[0]]
