"""Play a trained run, the expert or random actions: success per task."""

from typing import TYPE_CHECKING, Any, Literal

from mtorl import InputError

if TYPE_CHECKING:
    from mtorl.envs.results import EvalReport


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.envs.engines import engine
    from mtorl.families import load
    from mtorl.reports.evaluation_table import show_report
    from mtorl.runs.evaluations import evaluate

    load("suites")
    parser = parser_of("evaluate", evaluate, skip={"run"})
    parser.add_argument(
        "run", type=str, nargs="?", help="Folder of a trained run, or zoo:NAME; or give --policy and --suite."
    )
    parser.add_argument(
        "--recorded",
        type=str,
        help="Instead of playing, compare the run's actions with those of this data set (one collected with --split "
        "heldout, best): mean squared difference per task.",
    )
    parser.add_argument(
        "--along",
        type=Literal["manifold"],
        help="Play a run that was trained with ParetoManifold between its tasks: eleven points of two tasks, a "
        "triangle of three, of more the corners and the middle. `mtorl report` shows them.",
    )
    where = parser.add_function_arguments(engine)
    options = objects(parser, arguments)
    usual = vars(parser.get_defaults())
    recorded, along = options.pop("recorded"), options.pop("along")
    if recorded is not None:
        if along is not None:
            raise InputError("--recorded and --along are not given together: nothing is played with --recorded.")
        _compare_actions(recorded, options, usual)
        return
    with engine(**{name: options.pop(name) for name in where}):
        if along is not None:
            _play_along(options)
            return
        report = evaluate(**options)
    show_report(report)
    print(f"saved: {report.path}")
    _compare_with_card(options["run"], report)


def _compare_with_card(run: str | None, report: "EvalReport") -> None:
    """Says of an entry of the zoo how many episodes went as its card says."""
    from mtorl.runs.packing import evaluations
    from mtorl.runs.run import Run
    from mtorl.runs.zoo import entry_folder, is_entry, like_the_card

    if run is None or not is_entry(run):
        return
    alike = like_the_card(report, evaluations(Run(entry_folder(run))))
    if alike is not None:
        print(f"as on the card of {run}: {alike[0]} of {alike[1]} episodes, by success and length")


def _play_along(options: dict[str, Any]) -> None:
    from mtorl.reports.tables import show_front
    from mtorl.runs.evaluations import evaluate_along

    if options["run"] is None or not (options.pop("policy") is options.pop("suite") is None):
        raise InputError("--along is for runs; give the folder of one, and neither --policy nor --suite.")
    front = evaluate_along(**options)
    show_front(front)
    print(f"saved: {front.folder}")


def _compare_actions(recorded: str, options: dict[str, Any], usual: dict[str, Any]) -> None:
    from mtorl.reports.tables import show_action_errors
    from mtorl.runs.run import Run

    if options["run"] is None:
        raise InputError("--recorded is for runs; give the folder of one, whose actions are compared.")
    free = ("run", "checkpoint", "workers", "quiet")
    if any(value != usual[name] for name, value in options.items() if name not in free):
        raise InputError("--recorded takes --checkpoint only: nothing is played, so nothing else is looked at.")
    show_action_errors(Run(options["run"]).action_errors(recorded, options["checkpoint"]))
