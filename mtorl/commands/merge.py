"""Make one new data set of several."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.datasets.operations import merge
    from mtorl.reports.tables import show_store

    parser = parser_of("merge", merge, skip={"data"})
    parser.add_argument("data", type=str, nargs="+", help="Folders of the data sets.")
    show_store(merge(**objects(parser, arguments)))
