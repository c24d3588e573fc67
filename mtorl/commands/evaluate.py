"""Play a trained run, the expert or random actions: success per task."""

from typing import Any

from mtorl import InputError


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.families import load
    from mtorl.reports.tables import show_report
    from mtorl.runs.evaluations import evaluate

    load("suites")
    parser = parser_of("evaluate", evaluate, skip={"run"})
    parser.add_argument("run", type=str, nargs="?", help="Folder of a trained run; or give --policy and --suite.")
    parser.add_argument(
        "--recorded",
        type=str,
        help="Instead of playing, compare the run's actions with those of this data set (one collected with --split "
        "heldout, best): mean squared difference per task.",
    )
    parser.add_argument(
        "--along",
        choices=["manifold"],
        help="Play a run trained with --sharing ParetoManifold at points between its tasks: along the edge of two, "
        "over the triangle of three, at the corners and in the middle of more.",
    )
    options = objects(parser, arguments)
    recorded, along = options.pop("recorded"), options.pop("along")
    if recorded is not None and along is not None:
        raise InputError("--recorded plays nothing: leave --along out.")
    if along is not None:
        _play_along(options)
        return
    if recorded is not None:
        _compare_actions(recorded, options, vars(parser.get_defaults()))
        return
    report = evaluate(**options)
    show_report(report)
    print(f"saved: {report.path}")


def _play_along(options: dict[str, Any]) -> None:
    from mtorl.reports.tables import show_front
    from mtorl.runs.evaluations import evaluate_along

    if options["run"] is None or options.pop("policy") is not None or options.pop("suite") is not None:
        raise InputError("--along manifold is for runs; give the folder of one, without --policy and --suite.")
    reports = evaluate_along(**options)
    show_front(reports)
    folder = reports[0].path
    print(f"saved: {len(reports)} reports in {folder.parent if folder else '.'}")


def _compare_actions(recorded: str, options: dict[str, Any], usual: dict[str, Any]) -> None:
    from mtorl.reports.tables import show_action_errors
    from mtorl.runs.run import Run

    if options["run"] is None:
        raise InputError("--recorded is for runs; give the folder of one, whose actions are compared.")
    free = ("run", "checkpoint", "workers", "quiet")
    if any(value != usual[name] for name, value in options.items() if name not in free):
        raise InputError("--recorded takes --checkpoint only: nothing is played, so nothing else is looked at.")
    show_action_errors(Run(options["run"]).action_errors(recorded, options["checkpoint"]))
