"""Write a policy to take away, or a data set in a form that other projects read: D4RL, Minari, npz."""

from pathlib import Path
from typing import Any

from mtorl import InputError

USAGE = (
    "usage: mtorl export KIND STORE ..., a data set, where KIND is one of {}; `mtorl export KIND --help` says more.\n"
    "       mtorl export RUN --format safetensors|torchscript|onnx|run --out FOLDER, the policy of a trained run,\n"
    "       given by its folder or as zoo:NAME; `mtorl export RUN --help` says more."
)


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import kind_of
    from mtorl.runs.zoo import is_entry

    first = arguments[0] if arguments else ""
    if is_entry(first) or first == "RUN" or (Path(first) / "config.yaml").is_file():
        _export_policy(arguments)
        return
    try:
        kind = kind_of("exporters", USAGE, arguments)
    except InputError as error:
        if first.startswith("-"):
            raise InputError(f"{first!r} is no kind of data and no run; expected one of these first.") from None
        raise InputError(f"{error} To export a policy, give the folder of its run: {first} is none.") from None
    if kind is not None:
        _export(first, kind, arguments[1:])


def _export_policy(arguments: list[str]) -> None:
    from mtorl.commands.base import objects, parser_of
    from mtorl.reports.policy_export import export_policy

    parser = parser_of("export", export_policy, skip={"run"})
    parser.add_argument("run", type=str, help="Folder of a trained run, or zoo:NAME.")
    folder = export_policy(**objects(parser, arguments))
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    size = sum((folder / path).stat().st_size for path in files)
    print(f"{folder}: {', '.join(map(str, files))}; {size / 1e6:.2f} MB")


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
