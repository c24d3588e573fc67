"""Make a data set of files of another kind: D4RL, Minari, HarmoDT, npz."""

from typing import Any

USAGE = "usage: mtorl import KIND PATH... --out STORE, where KIND is one of {}; `mtorl import KIND --help` says more."


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import kind_of
    from mtorl.families import load

    kind = kind_of("importers", USAGE, arguments)
    if kind is not None:
        load("suites")
        _import(arguments[0], kind, arguments[1:])


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
