"""What the page of runs shows, as plain values for others to read."""

from collections.abc import Mapping, Sequence

from mtorl.envs.results import EvalReport
from mtorl.envs.task_result import TaskResult
from mtorl.measures import SUCCESS
from mtorl.reports.entries import RunEntry
from mtorl.runs.fronts import Front, kept_fronts
from mtorl.schema import Document


def as_json(entries: Sequence[RunEntry], references: Mapping[str, EvalReport]) -> Document:
    """What the page shows, as JSON."""

    def costs(entry: RunEntry) -> Document:
        return {
            "models": len(entry.parts),
            "parameters": entry.parameters,
            "training_steps": entry.steps,
            "training_minutes": entry.minutes,
            "groups": [list(group) for group in entry.run.spec.grouped] or None,
        }

    def summary(name: str, report: EvalReport, rows: Sequence[TaskResult]) -> Document:
        success = report.mean_of(SUCCESS, report.task_names)
        return {
            "name": name,
            "mean_success": success and success.value,
            "low": success and success.low,
            "high": success and success.high,
            **({"means": [mean.plain() for mean in report.means]} if report.returns_only else {}),
            "protocol": vars(report.protocol),
            "tasks": [_task_as_json(row) for row in rows],
        }

    success = entries[0].report.mean_of(SUCCESS, entries[0].report.task_names)
    return {
        "mean_success": success and success.value,
        "runs": [
            summary(entry.name, entry.report, entry.rows) | costs(entry) | _fronts_as_json(fronts)
            for entry, fronts in zip(entries, fronts_of(entries), strict=True)
        ],
        "references": [summary(name, report, report.tasks()) for name, report in references.items()],
    }


def _task_as_json(row: TaskResult) -> Document:
    """One task; nothing is said of success where there is none."""
    content = row._asdict()
    for name in ("return_interval", "returns_only", "bounds"):
        del content[name]
    if row.returns_only:
        content |= dict.fromkeys(("successes", "low", "high", "success_last_rate"))
        content["return"] = row.measure.plain()
    score = {"normalised_score": row.score.plain()} if row.score else {}
    return content | {"rate": None if row.returns_only else row.rate} | score


def fronts_of(entries: Sequence[RunEntry]) -> list[list[Front]]:
    """For every run what was played along its manifold by the same weights, in the same way."""
    return [[front for front in kept_fronts(entry.run) if front.is_of(entry.report)] for entry in entries]


def _fronts_as_json(fronts: Sequence[Front]) -> Document:
    """What tasks are judged by at the points; nothing for most runs."""
    return (
        {
            "along_manifold": [
                {
                    "point": list(point),
                    "goals": it.protocol.goals,
                    "tasks": {row.task: row.measure.value for row in it.tasks()},
                }
                for front in fronts
                for point, it in zip(front.points, front.reports, strict=True)
            ]
        }
        if fronts
        else {}
    )
