"""Train and evaluate all combinations of settings and seeds, and compare them."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.reports.comparison import compare
    from mtorl.reports.tables import show_comparison
    from mtorl.runs.sweep import ablate

    path = compare(ablate(**objects(parser_of("ablate", ablate), arguments)))
    show_comparison(path.with_suffix(".json"))
    print(f"comparison: {path} and {path.with_suffix('.json')}")
