"""The table of an evaluation, for the terminal."""

from typing import TYPE_CHECKING

from mtorl.measures import SCORE, SCORE_NOTE, Measure, Scale, common_scale
from mtorl.reports.many import HARDEST, MANY_TASKS, hardest
from mtorl.reports.terminal import show as _print
from mtorl.reports.terminal import table as _table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtorl.envs.results import EvalReport
    from mtorl.envs.task_result import TaskResult


def show_report(report: "EvalReport") -> None:
    """Prints what every task is judged by, with its interval; means over tasks come last.

    That is success, and the mean return of tasks without it; the two are never averaged together. Of many tasks those
    with the lowest values are shown, and how the values of all are spread.
    """
    protocol, rows = report.protocol, report.tasks()
    by_name = {row.task: row for row in rows}
    judged = {scale: {row.task: row.on(scale).value for row in alike} for scale, alike in report.scales.items()}
    shown = [by_name[task] for values in judged.values() for task in hardest(values)]
    if len(shown) == len(rows):
        shown = rows
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
    for row in shown:
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
    for scale, values in judged.items():
        if len(values) > MANY_TASKS:
            _print_spread(scale, sorted(values.values()))


def _print_spread(scale: Scale, values: "Sequence[float]") -> None:
    """What tasks are judged by, ascending, where only the hardest are shown."""
    shares = (0.1, 0.25, 0.5, 0.75, 0.9)
    words = [scale.text(values[round(share * (len(values) - 1))]) for share in shares]
    print(
        f"the {HARDEST} hardest of {len(values)} tasks are shown; {scale.name} at 10, 25, 50, 75 and 90 % of all: "
        f"{', '.join(words)}. The saved file has every task, and so has the page of `mtorl report`."
    )


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
