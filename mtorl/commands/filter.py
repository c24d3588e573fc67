"""Make a new data set of the better episodes of another one, the successful ones, or some tasks."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.datasets.operations import filter
    from mtorl.reports.tables import show_store

    parser = parser_of("filter", filter, skip={"data"})
    parser.add_argument("data", type=str, help="Folder of the data set.")
    show_store(filter(**objects(parser, arguments)))
