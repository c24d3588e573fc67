"""Evaluations along a manifold of networks: what every mixture of the tasks costs each of them.

They are kept in `evaluations/manifold/`, in a folder for each way to play, one file for each point.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mtorl import InputError
from mtorl.envs.base import Suite
from mtorl.envs.engines import open_pool
from mtorl.envs.evaluator import evaluate
from mtorl.envs.protocol import EvaluationSettings, Protocol
from mtorl.envs.results import EvalReport, Source
from mtorl.runs.kept import readable
from mtorl.runs.run import Run
from mtorl.trainers.policy import TaskPolicy

FOLDER = "manifold"


@dataclass(frozen=True)
class Front:
    """A policy that was played at several points between its tasks.

    Attributes:
        mixed: The T tasks that points have shares of.
        reports: One of each point; `source.point` says where.
    """

    mixed: tuple[str, ...]
    reports: tuple[EvalReport, ...]

    @cached_property
    def points(self) -> list[tuple[float, ...]]:
        """Shares `[T]` of every report."""
        return [report.source.point or () for report in self.reports]

    @property
    def names(self) -> list[str]:
        """Points in words: the task that has all, the middle, or the shares."""
        return [_named(point, self.mixed) for point in self.points]

    @property
    def folder(self) -> Path:
        """Which holds the reports."""
        assert self.reports[0].path is not None
        return self.reports[0].path.parent

    def is_of(self, report: EvalReport) -> bool:
        """Whether that evaluation is of the same weights, played in the same way, whatever the number of goals."""
        first = self.reports[0]
        goals = replace(first.protocol, goals=report.protocol.goals)
        return (goals, first.suite, first.versions) == (report.protocol, report.suite, report.versions) and replace(
            first.source, point=None
        ) == report.source


def evaluate_front(
    run: Run, settings: EvaluationSettings, out: str | Path | None = None, workers: int = 2, quiet: bool = False
) -> Front:
    """Plays all tasks at every point of a run's manifold.

    Points that were played already, with the same weights and in the same way, are read.

    Args:
        run: The run.
        settings: How to play.
        out: Folder of the reports; `evaluations` in the run's own by default.
        workers: Processes that play.
        quiet: Show no progress.

    Raises:
        InputError: The run has no points between its tasks.
    """
    policy, source = run.policy(settings.checkpoint or "last", settings.act_with)
    points = policy.points() if isinstance(policy, TaskPolicy) else []
    if not isinstance(policy, TaskPolicy) or not points:
        raise InputError(
            f"{run.folder} has no manifold to be played along: it was trained with --sharing "
            f"{type(run.configuration.experiment().sharing).__name__}, number of tasks: {len(run.spec.task_names)}. "
            "Expected a run of several tasks with --sharing ParetoManifold."
        )
    suite, protocol = run.suite(settings.goal_visible), settings.protocol
    folder, reports = _folder(run, settings, out), []
    with open_pool(workers) as pool:
        for number, point in enumerate(points):
            path = folder / f"{number:0{len(str(len(points) - 1))}}.json"
            there = replace(source, point=point, demonstrations_sha256=settings.shown)
            found = _kept(path, there, protocol, protocol.plays(suite))
            if found is None:
                name = f"{run.named(source)}, point {number + 1} of {len(points)}"
                found = evaluate(policy.at(point), suite, protocol, pool, name, out=path, source=there, quiet=quiet)
            reports.append(found)
    return Front(run.spec.task_names, tuple(reports))


def kept_fronts(run: Run) -> list[Front]:
    """All that a run's folder keeps, in the order of their names.

    Files that cannot be read are left out, with a `DamageWarning`.
    """
    found = []
    for folder in sorted((run.home / "evaluations" / FOLDER).glob("*/")):
        reports = [report for path in sorted(folder.glob("*.json")) if (report := readable(path))]
        alike = [report for report in reports if report.source.point and _same(report, reports[-1])]
        if alike:
            found.append(Front(run.spec.task_names, tuple(alike)))
    return found


def _folder(run: Run, settings: EvaluationSettings, out: str | Path | None) -> Path:
    target = run.report_path(
        settings.protocol, settings.checkpoint or "last", settings.goal_visible, out, settings.act_with
    )
    return target.parent / FOLDER / target.stem


def _kept(path: Path, source: Source, protocol: Protocol, suite: Suite) -> EvalReport | None:
    """The report of a point, if it is of the same weights and was played in the same way."""
    if not path.exists():
        return None
    report = EvalReport.load(path)
    found = (report.source, report.protocol, report.suite, report.versions)
    return report if found == (source, protocol, suite.describe(), suite.versions()) else None


def _same(one: EvalReport, other: EvalReport) -> bool:
    """Whether both are of the same weights: an evaluation that begins again leaves the rest as they were."""
    return replace(one.source, point=None) == replace(other.source, point=None)


def _named(point: tuple[float, ...], tasks: tuple[str, ...]) -> str:
    if 1.0 in point:
        return f"all {tasks[point.index(1.0)]}"
    if len(set(point)) == 1:
        return "equal"
    return " ".join(f"{share:.1f}" for share in point)
