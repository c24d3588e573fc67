"""The command `mtorl`: from a command line to objects. Sub-commands load what they need, so `--help` is fast."""

import argparse
import itertools
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mtorl import InputError, __version__

if TYPE_CHECKING:
    from mtorl.envs.base import Suite

USAGE = """usage: mtorl [--help] [--version] COMMAND ...

Multi-task offline reinforcement learning: one policy, many tasks, success per task.

commands:
  collect   record episodes of a suite's scripted experts into a data set
  info      show what a data set holds, task by task; --verify checks every byte
  train     train one policy for all tasks of a data set; --resume continues a run
  evaluate  play a trained run, the expert or random actions: success per task
  report    compare runs in one self-contained HTML file
  group     find groups of tasks from the gradients of a trained run
  masks     show what a run's masks are like; --export writes them to a file
  ablate    train and evaluate all combinations of settings and seeds, and compare them
  list      what can be chosen: balancers, sharing, agents, suites

`mtorl COMMAND --help` lists a command's options. Every command that takes many also takes --config FILE.yaml and
--print_config.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The command line without the program's name.

    Returns:
        Exit code: 0, 1 if part of what was to be shown could not be read, 2 for wrong input, 130 after Ctrl-C.
    """
    _open_standard_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `mtorl info data | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"error: {error.filename or 'a file or pipe'}: {error.strerror or error}.", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or re.search("memory|Storage size|overflow", str(error))):
            raise
        print(f"error: {_out_of_memory(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"\ninterrupted: {str(interrupt) or _how_to_continue(arguments)}", file=sys.stderr)
        return 130
    return code


def _run(arguments: list[str]) -> int:
    """Runs the command that is named first; returns the exit code, unless something is raised."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    commands: dict[str, Callable[[list[str]], str | None]] = {
        "collect": _collect,
        "info": _info,
        "train": _train,
        "evaluate": _evaluate,
        "report": _report,
        "group": _group,
        "masks": _masks,
        "ablate": _ablate,
        "list": _list,
    }
    if arguments[0] not in commands:
        print(USAGE, end="", file=sys.stderr)
        print(f"\nerror: unknown command {arguments[0]!r}; expected one of {', '.join(commands)}.", file=sys.stderr)
        return 2
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: classes in files of the current folder can be named
    damaged: list[str] = []

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        print(f"warning: {message}", file=sys.stderr)
        if category.__name__ == "DamageWarning":  # by its name: what defines it need not be loaded
            damaged.append(str(message))

    warnings.showwarning = show
    commands[arguments[0]](arguments[1:])
    return 1 if damaged else 0


def _open_standard_streams() -> None:
    """Gives closed standard streams (`>&-`) the null device; a file opened later would take their place."""
    while (handle := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(handle, True)
        name = ("stdin", "stdout", "stderr")[handle]
        setattr(sys, name, os.fdopen(handle, "w" if handle else "r"))
    os.close(handle)


def _out_of_memory(error: BaseException) -> str:
    reason = next(iter(str(error).splitlines()), "").rstrip(".") or "an allocation failed"
    remedy = "Use smaller batches (--windows), a smaller network, or fewer --workers"
    return f"the memory does not suffice ({reason}). {remedy}."


def _how_to_continue(arguments: list[str]) -> str:
    if arguments[0] in ("collect", "evaluate", "ablate"):
        return f"what is finished was saved; continue with the same command, `mtorl {shlex.join(arguments)}`."
    return "nothing was begun."


def _pairs(arguments: list[str]) -> list[tuple[str, str]]:
    """Options and their values, for `--option value` and `--option=value`."""
    split = [part for argument in arguments for part in argument.split("=", 1)]
    return list(itertools.pairwise(split))


def _parser(command: str, function: Callable[..., Any], skip: set[str] | None = None) -> Any:
    from mtorl.arguments import Parser

    parser = Parser(prog=f"mtorl {command}", description=(function.__doc__ or "").split("\n\n")[0])
    parser.add_function(function, skip)
    return parser


def _objects(parser: Any, arguments: list[str]) -> dict[str, Any]:
    objects = vars(parser.instantiate(parser.parse_args(arguments)))
    objects.pop("config", None)
    return objects


def _collect(arguments: list[str]) -> None:
    from mtorl.envs.collect import collect

    store = collect(**_objects(_parser("collect", collect), arguments))
    _show_store(store)


def _info(arguments: list[str]) -> None:
    from mtorl.datasets.store import EpisodeStore

    def info() -> None:
        """Shows what a data set holds: per task episodes, steps, returns and success, and its versions."""

    parser = _parser("info", info)
    parser.add_argument("data", type=str, help="Folder of the data set.")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="Also read everything once and recompute what the data set says of itself.",
    )
    options = _objects(parser, arguments)
    store = EpisodeStore(options["data"])
    _show_store(store)
    if options["verify"]:
        from mtorl.envs.base import check_recorded

        store.verify()
        check_recorded(store)
        print(
            "verified: all hashes match, all numbers are finite, all actions lie in [-1, 1], returns-to-go are the sums"
            " of rewards, the statistics of tasks are those of their episodes, the suite has its tasks and dimensions."
        )


def _train(arguments: list[str]) -> None:
    resumed = [value for option, value in _pairs(arguments) if option == "--resume"]
    from mtorl.trainers.run import Run, start, train_parser

    if resumed:
        rest = _without(arguments, "--resume")
        run = Run(resumed[-1]).resume(rest)
    else:
        parser = train_parser()
        parser.add_argument(
            "--resume",
            metavar="RUN",
            default=argparse.SUPPRESS,
            help="Continue this interrupted run; then no other is needed.",
        )
        config = parser.parse_args(arguments)
        config.pop("resume", None)
        run = start(config, ["mtorl", "train", *arguments])
    print(f"trained: {run.folder}. Next: `mtorl evaluate {run.folder}`, then `mtorl report {run.folder}`.")


def _without(arguments: list[str], option: str) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept


def _evaluate(arguments: list[str]) -> None:
    import mtorl.envs  # noqa: F401  the suites that --suite can name

    parser = _parser("evaluate", evaluate_command, skip={"run"})
    parser.add_argument("run", type=str, nargs="?", help="Folder of a trained run; or give --policy and --suite.")
    evaluate_command(**_objects(parser, arguments))


def evaluate_command(
    run: str | None = None,
    policy: Literal["expert", "random"] | None = None,
    suite: "Suite | None" = None,
    protocol: Literal["official", "heldout", "ml45-like"] = "heldout",
    goals: int = 50,
    stop_at_success: bool = False,
    task_identity: Literal["shown", "hidden"] = "shown",
    demonstrations: str | None = None,
    context: Literal["exact", "anchored"] = "exact",
    goal_visible: bool | None = None,
    act_with: str | None = None,
    seed: int = 0,
    checkpoint: str = "last",
    recorded: str | None = None,
    out: str | None = None,
    workers: int = 2,
    quiet: bool = False,
) -> None:
    """Plays a trained run, the scripted expert or random actions in every task and reports success per task.

    Args:
        run: Folder of a trained run.
        policy: Play the suite's scripted expert or random actions instead: the reference rows.
        suite: The suite, with --policy; a run knows its own.
        protocol: official (the 50 training goals, one episode each), heldout (50 goals never trained on) or ml45-like
            (the same of tasks that were not trained on, with their identity hidden: the five test tasks of ML45).
        goals: Goals per task; the first that many.
        stop_at_success: End episodes at their first success: faster, but success at the last step is unknown.
        task_identity: Tell the policy which task it is in (shown), or not (hidden).
        demonstrations: A data set whose best episode of each task is shown to the policy: for prompts, and to find the
            group of a task whose identity is hidden.
        context: Agents that look at the last K steps do so at each step (exact), or begin again with half of them
            whenever they have seen K (anchored): faster, but not the same actions.
        goal_visible: Show the run the goal's position, or hide it; as in its data by default.
        act_with: Which policy of an agent that has several; by default what its configuration says.
        seed: Seed of random actions.
        checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
        recorded: Instead of playing, compare the run's actions with those of this data set (one collected with
            --split heldout, best): mean squared difference per task.
        out: Folder of the report; by default the run's own, or runs/references.
        workers: Processes that play episodes.
        quiet: Show no progress.
    """
    from mtorl.envs.evaluator import Protocol

    how = Protocol(
        protocol,
        goals,
        stop_at_success,
        seed,
        task_identity=task_identity,
        demonstrations=demonstrations,
        context=context,
    )
    if (run is None) == (policy is None):
        raise InputError("give either the folder of a run or --policy expert|random, not both and not neither.")
    if run is not None:
        if suite is not None:
            raise InputError("a run brings its own suite; leave --suite out.")
        from mtorl.trainers.run import Run

        trained = Run(run)
        if recorded is not None:
            if not (out is goal_visible is act_with is None) or vars(how) != vars(Protocol()):
                raise InputError("--recorded takes --checkpoint only: nothing is played, so nothing else is looked at.")
            from mtorl.tables import show_action_errors

            return show_action_errors(trained.action_errors(recorded, checkpoint))
        report = trained.evaluate(how, checkpoint, goal_visible, out, workers, quiet, act_with)
        path = trained.report_path(how, checkpoint, goal_visible, out, act_with)
    else:
        if suite is None:
            raise InputError(f"--policy {policy} needs a suite: add --suite MetaWorld --suite.benchmark MT10.")
        from mtorl.envs.references import evaluate_reference

        if checkpoint != "last" or not (goal_visible is recorded is act_with is None):
            raise InputError(
                "--checkpoint, --goal_visible, --act_with and --recorded are for runs; use --suite.goal_visible with "
                "--policy."
            )
        assert policy is not None
        folder = Path(out or "runs/references")
        report, path = evaluate_reference(policy, suite, how, folder, workers, quiet)
    from mtorl.tables import show_report

    show_report(report)
    print(f"saved: {path}")


def _report(arguments: list[str]) -> None:
    from mtorl.trainers.report import make_report

    parser = _parser("report", make_report, skip={"runs"})
    parser.add_argument("runs", type=str, nargs="+", help="Folders of evaluated runs.")
    path = make_report(**_objects(parser, arguments))
    print(f"report: {path} and {path.with_suffix('.json')}")


def _group(arguments: list[str]) -> None:
    from mtorl.tables import show_grouping
    from mtorl.trainers.groupers import AgreementKMeans, TaskGrouper
    from mtorl.trainers.run import Run

    def group(groups: int, out: str, grouper: TaskGrouper | None = None, checkpoint: str = "last") -> None:
        """Finds groups of tasks from the gradients of a trained run, for --sharing GroupMasks.

        Args:
            groups: How many groups.
            out: File of the grouping.
            grouper: How; AgreementKMeans by default.
            checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
        """

    parser = _parser("group", group)
    parser.add_argument("run", type=str, help="Folder of a trained run.")
    options = _objects(parser, arguments)
    grouping = Run(options["run"]).group(
        options["grouper"] or AgreementKMeans(), options["groups"], options["checkpoint"]
    )
    grouping.save(options["out"])
    show_grouping(grouping)
    print(f"saved: {options['out']}")


def _masks(arguments: list[str]) -> None:
    from mtorl.tables import show_masks
    from mtorl.trainers.mask_report import export_masks, summarise
    from mtorl.trainers.run import Run

    def masks(checkpoint: str = "last", export: str | None = None) -> None:
        """Shows what the masks of a run are like: densities, what tasks have in common, how far they moved.

        Args:
            checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
            export: Also write the masks to this file (safetensors): bool [tasks, rows, columns] by the matrix's name.
        """

    parser = _parser("masks", masks)
    parser.add_argument("run", type=str, help="Folder of a trained run.")
    options = _objects(parser, arguments)
    run = Run(options["run"])
    summaries = summarise(run, options["checkpoint"])
    if not summaries:
        raise InputError(f"{run.folder} has no masks: it was trained with a sharing that has none, such as Shared.")
    for summary in summaries:
        show_masks(summary)
    if options["export"]:
        print(f"exported: {export_masks(run, options['export'], options['checkpoint'])}")


def _ablate(arguments: list[str]) -> None:
    from mtorl.trainers.ablation import ablate

    path = ablate(**_objects(_parser("ablate", ablate), arguments))
    from mtorl.tables import show_comparison

    show_comparison(path.with_suffix(".json"))
    print(f"comparison: {path} and {path.with_suffix('.json')}")


def _list(arguments: list[str]) -> None:
    from mtorl.families import FAMILIES, members

    def listing() -> None:
        """Lists what can be named on the command line. `--balancer.help NAME` and the like show a member's options."""

    parser = _parser("list", listing)
    parser.add_argument("family", choices=list(FAMILIES), help="Which family.")
    from mtorl.tables import show_members

    family = _objects(parser, arguments)["family"]
    show_members(family, members(family))


def _show_store(store: Any) -> None:
    from mtorl.tables import show_store

    show_store(store)
