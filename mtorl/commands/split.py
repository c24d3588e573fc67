"""Split the episodes of a data set into two new ones."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.datasets.operations import split
    from mtorl.reports.tables import show_store

    parser = parser_of("split", split, skip={"data", "out"})
    parser.add_argument("data", type=str, help="Folder of the data set.")
    parser.add_argument("--out", type=str, nargs=2, required=True, help="Folders of the two new ones.")
    for store in split(**objects(parser, arguments)):
        show_store(store)
