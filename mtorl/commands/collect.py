"""Record episodes of a suite's scripted experts into a data set."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.envs.collect import collect
    from mtorl.families import load
    from mtorl.reports.tables import show_store

    load("suites")
    show_store(collect(**objects(parser_of("collect", collect), arguments)))
