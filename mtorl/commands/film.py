"""Film a trained run: chosen episodes, or the first failures of every task."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.reports.films import film
    from mtorl.reports.tables import show_films

    parser = parser_of("film", film, skip={"run"})
    parser.add_argument("run", type=str, help="Folder of a trained run.")
    show_films(film(**objects(parser, arguments)))
