"""Make a data set of files of another kind: D4RL, Minari, HarmoDT, LeRobot, npz."""

import shlex
from pathlib import Path
from typing import Any

from mtorl import InputError

USAGE = "usage: mtorl import KIND PATH... --out STORE, where KIND is one of {}; `mtorl import KIND --help` says more."


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import kind_of
    from mtorl.families import load

    _refuse_path(arguments)
    kind = kind_of("importers", USAGE, arguments)
    if kind is not None:
        load("suites")
        _import(arguments[0], kind, arguments[1:])


def _refuse_path(arguments: list[str]) -> None:
    """Raises InputError for data where their kind should be named; says which kind they look like."""
    from mtorl.families import classes

    if not arguments or not Path(arguments[0]).exists():
        return
    kinds: list[Any] = classes("importers")
    looks = [kind.__name__.lower() for kind in kinds if kind.recognises(Path(arguments[0]))]
    if looks:
        raise InputError(f"expected the kind of data first: `mtorl import {looks[0]} {shlex.join(arguments)}`.")


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
