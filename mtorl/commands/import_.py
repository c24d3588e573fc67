"""Make a data set of files of another kind: D4RL, Minari, HarmoDT, npz."""

import inspect
from typing import Any

from mtorl import InputError

USAGE = "usage: mtorl import KIND PATH... --out STORE, where KIND is one of {}; `mtorl import KIND --help` says more."


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.datasets import importers
    from mtorl.families import load

    shown = (getattr(importers, name) for name in dir(importers))
    kinds = {kind.__name__.lower(): kind for kind in shown if _concrete(kind, importers.Importer)}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(", ".join(kinds)))
        return
    if arguments[0] not in kinds:
        raise InputError(f"unknown kind of data {arguments[0]!r}; expected one of {', '.join(kinds)}.")
    load("suites")
    _import(arguments[0], kinds[arguments[0]], arguments[1:])


def _concrete(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base) and not inspect.isabstract(kind)


def _import(name: str, kind: Any, arguments: list[str]) -> None:
    from mtorl.commands.base import objects, parser_of
    from mtorl.envs.importing import import_data
    from mtorl.reports.tables import show_store

    parser = parser_of(f"import {name}", import_data, skip={"importer", "paths"})
    parser.add_argument("paths", type=str, nargs="+", help="Files or folders.")
    own = parser.add_class_arguments(kind)
    options = objects(parser, arguments)
    importer = kind(**{option: options.pop(option) for option in own})
    show_store(import_data(importer, **options))
