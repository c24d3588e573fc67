"""Compare runs in one self-contained HTML file."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.reports.run_report import report

    parser = parser_of("report", report, skip={"runs"})
    parser.add_argument("runs", type=str, nargs="+", help="Folders of evaluated runs.")
    path = report(**objects(parser, arguments))
    print(f"report: {path} and {path.with_suffix('.json')}")
