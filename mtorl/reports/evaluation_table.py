"""The table of an evaluation, for the terminal."""

from typing import TYPE_CHECKING

from mtorl.measures import SCORE, SCORE_NOTE, Measure, common_scale
from mtorl.reports.terminal import show as _print
from mtorl.reports.terminal import table as _table

if TYPE_CHECKING:
    from mtorl.envs.results import EvalReport
    from mtorl.envs.task_result import TaskResult


def show_report(report: "EvalReport") -> None:
    """Prints what every task is judged by, with its interval; means over tasks come last.

    That is success, and the mean return of tasks without it; the two are never averaged together.
    """
    protocol, rows = report.protocol, report.tasks()
    kind = "training goals" if protocol.split == "train" else "held-out goals"
    stop = "".join(f", {remark}" for remark in [*protocol.remarks, *(["goal hidden"] if report.goal_hidden else [])])
    succeed, scored = any(not row.returns_only for row in rows), any(row.score for row in rows)
    table = _table(
        f"{report.policy}: {protocol.name} protocol, {protocol.goals} {kind} per task{stop}",
        "task",
        common_scale([row.measure.scale for row in rows]),
        "95 % interval",
        "episodes",
        *(["at last step", "return"] if succeed else []),
        *(["normalised score"] if scored else []),
        "length",
    )
    for row in rows:
        table.add_row(
            row.task,
            row.measure.text(),
            row.measure.interval(),
            f"{row.episodes}",
            *([_at_last_step(row), f"{row.mean_return:.0f}"] if succeed else []),
            *([row.score.text() if row.score else "-"] if scored else []),
            f"{row.mean_length:.0f}",
        )
    table.add_section()
    for mean in report.means:
        table.add_row(*_mean(report, mean, succeed, scored))
    if scored:
        table.caption = SCORE_NOTE
    _print(table)


def _mean(report: "EvalReport", mean: Measure, succeed: bool, scored: bool) -> list[str]:
    """The cells of a mean over tasks; a normalised score has a column of its own."""
    rows, apart = report.scales[mean.scale], mean.scale is SCORE
    last = [row.success_last_rate for row in rows if row.success_last_rate is not None and not row.returns_only]
    return [
        f"mean {mean.scale.name + ' ' if len(report.means) > 1 else ''}of {mean.tasks} tasks",
        *(["", ""] if apart else [mean.text(1), mean.interval(1)]),
        f"{sum(row.episodes for row in rows)}",
        *([f"{sum(last) / len(last):.0%}" if len(last) == len(rows) else "-", ""] if succeed else []),
        *([f"{mean.text()} ({mean.interval()})" if apart else ""] if scored else []),
        "",
    ]


def _at_last_step(row: "TaskResult") -> str:
    return "-" if row.success_last_rate is None or row.returns_only else f"{row.success_last_rate:.0%}"
