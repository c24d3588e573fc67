"""A run played at points between its tasks: along the edge of two, over the triangle of three, at corners of more."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mtorl import InputError
from mtorl.envs.evaluator import evaluate
from mtorl.envs.protocol import EvaluationSettings, point_label
from mtorl.envs.results import EvalReport, Source
from mtorl.envs.workers import WorkerPool
from mtorl.runs.run import Run
from mtorl.trainers.policy import TaskPolicy


def policies_along(
    run: Run, checkpoint: str = "last", act_with: str | None = None
) -> Iterator[tuple[TaskPolicy, Source]]:
    """The trained policy of a run at points between its tasks, and what identifies each.

    Args:
        run: The run.
        checkpoint: `last`, `best` on training goals, or a step.
        act_with: Which policy of an agent that has several; by default what its configuration says.

    Raises:
        InputError: The tasks share parameters in a way that has nothing between them.
    """
    agent, sharing, source = run.trained(checkpoint, act_with)
    acting = [sharing[phase] for phase in agent.acting_phases]
    points = acting[0].points()
    if not points:
        raise InputError(
            f"{run.folder} was trained with {type(acting[0]).__name__} on tasks {', '.join(run.spec.task_names)}, with "
            "no manifold between them. Expected a run of several tasks trained with --sharing ParetoManifold."
        )
    for point in points:
        placed = {phase: sharing[phase].at(point) for phase in agent.acting_phases}
        yield TaskPolicy(agent, sharing | placed), replace(source, point=point)


def play_along(
    run: Run,
    settings: EvaluationSettings,
    out: str | Path | None = None,
    workers: int = 2,
    quiet: bool = False,
) -> list[EvalReport]:
    """Plays the policy of a run at points between its tasks and keeps the reports beside its other ones.

    Args:
        run: The run.
        settings: How to play.
        out: Folder of the reports; `evaluations` in the run's own by default.
        workers: Processes that play.
        quiet: Show no progress.

    Raises:
        InputError: The tasks share parameters in a way that has nothing between them.
    """
    suite, reports = run.played_suite(settings.goal_visible), list[EvalReport]()
    with WorkerPool(workers) as pool:
        for policy, source in policies_along(run, settings.checkpoint or "last", settings.act_with):
            assert source.point is not None
            target = run.target(replace(settings, point=point_label(source.point)), out)
            name = run.named(source)
            reports.append(
                evaluate(policy, suite, settings.protocol, pool, name, out=target, source=source, quiet=quiet)
            )
    return reports
