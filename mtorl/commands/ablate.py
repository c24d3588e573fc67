"""Train and evaluate all combinations of settings and seeds, and compare them."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.envs.engines import engine
    from mtorl.reports.comparison import compare
    from mtorl.reports.tables import show_comparison
    from mtorl.runs.sweep import ablate

    parser = parser_of("ablate", ablate)
    own = parser.add_function_arguments(engine)
    options = objects(parser, arguments)
    with engine(**{name: options.pop(name) for name in own}):
        sweep = ablate(**options)
    path = compare(sweep)
    show_comparison(path.with_suffix(".json"))
    print(f"comparison: {path} and {path.with_suffix('.json')}")
