"""Evaluations, of trained runs and of what they are measured against."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.envs.base import Suite
from mtorl.envs.protocol import EvaluationSettings, Protocol, ProtocolName
from mtorl.envs.references import ReferenceName, evaluate_reference
from mtorl.envs.results import EvalReport
from mtorl.runs.fronts import Front, evaluate_front
from mtorl.runs.run import Run


def evaluate(
    run: str | Path | Run | None = None,
    policy: ReferenceName | None = None,
    suite: Suite | None = None,
    protocol: ProtocolName = "heldout",
    goal_visible: bool | None = None,
    act_with: str | None = None,
    checkpoint: str = "last",
    out: str | Path | None = None,
    workers: int = 2,
    quiet: bool = False,
    **options: Any,
) -> EvalReport:
    """Plays a trained run, the scripted expert or random actions in every task and reports success per task.

    Tasks without a success flag are judged by their returns.

    Args:
        run: Folder of a trained run.
        policy: Play the suite's scripted expert or random actions instead: the reference rows.
        suite: The suite, with --policy; a run knows its own.
        protocol: official (the 50 training goals, one episode each), heldout (50 goals never trained on) or ml45-like
            (the same of tasks that were not trained on, with their identity hidden: the five test tasks of ML45, or
            those that another suite keeps).
        goal_visible: Show the run the goal's position, or hide it; as in its data by default.
        act_with: Which policy of an agent that has several; by default what its configuration says.
        checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
        out: Folder of the report; by default the run's own, or runs/references.
        workers: Processes that play episodes.
        quiet: Show no progress.
        options: How episodes are played: any option of `Protocol` but `name` and `block`.

    Returns:
        The report; `path` is its file.
    """
    _refuse_unknown(options)
    how = Protocol(protocol, block=Protocol.block, **options)  # blocks are no option: they change last bits
    if (run is None) == (policy is None):
        raise InputError("give either the folder of a run or --policy expert|random, not both and not neither.")
    if run is not None:
        if suite is not None:
            raise InputError("a run brings its own suite; leave --suite out.")
        return Run(run).evaluate(how, checkpoint, goal_visible, out, workers, quiet, act_with)
    if suite is None:
        raise InputError(f"--policy {policy} needs a suite: add --suite MetaWorld --suite.benchmark MT10.")
    if checkpoint != "last" or not (goal_visible is act_with is None):
        raise InputError(
            "--checkpoint, --goal_visible and --act_with are for runs; use --suite.goal_visible with --policy."
        )
    assert policy is not None
    return evaluate_reference(policy, suite, how, Path(out or "runs/references"), workers, quiet)


def evaluate_along(
    run: str | Path | Run,
    protocol: ProtocolName = "heldout",
    goal_visible: bool | None = None,
    act_with: str | None = None,
    checkpoint: str = "last",
    out: str | Path | None = None,
    workers: int = 2,
    quiet: bool = False,
    **options: Any,
) -> Front:
    """Plays a run that was trained with ParetoManifold at points all over its manifold; see `evaluate`.

    Args:
        run: Folder of the run.
        protocol: official, heldout or ml45-like.
        goal_visible: Show the goal's position, or hide it; as in its data by default.
        act_with: Which policy of an agent that has several; by default what its configuration says.
        checkpoint: Which checkpoint: last, best (on training goals), or a step.
        out: Folder of the reports; by default the run's own.
        workers: Processes that play episodes.
        quiet: Show no progress.
        options: How episodes are played: any option of `Protocol` but `name` and `block`.

    Returns:
        A report of every point. Points that were played already are read.
    """
    _refuse_unknown(options)
    how, opened = Protocol(protocol, block=Protocol.block, **options), Run(run)
    settings = EvaluationSettings.asked(how, checkpoint, opened.unusual(act_with), goal_visible)
    return evaluate_front(opened, settings, out, workers, quiet)


def _refuse_unknown(options: dict[str, Any]) -> None:
    known = [field.name for field in fields(Protocol) if field.name not in ("name", "block")]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(f"unknown options {unknown}; expected some of {', '.join(known)}.")
