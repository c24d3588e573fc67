"""Write a data set in a form that other projects read: D4RL, Minari, npz."""

from typing import Any

USAGE = "usage: mtorl export KIND STORE ..., where KIND is one of {}; `mtorl export KIND --help` says more."


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import kind_of

    kind = kind_of("exporters", USAGE, arguments)
    if kind is not None:
        _export(arguments[0], kind, arguments[1:])


def _export(name: str, kind: Any, arguments: list[str]) -> None:
    from mtorl.commands.base import objects, parser_of
    from mtorl.datasets.store import EpisodeStore

    def export() -> None:
        """Writes a data set in a form that other projects read; `mtorl import` makes the same data set of it again."""

    parser = parser_of(f"export {name}", export)
    parser.add_argument("store", type=str, help="Folder of the data set.")
    parser.add_class_arguments(kind)
    options = objects(parser, arguments)
    store = EpisodeStore(options.pop("store"))
    written = kind(**options).export(store)
    print(f"{len(store)} episodes of {len(store.task_names)} tasks are in {written}")
