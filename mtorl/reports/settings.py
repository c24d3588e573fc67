"""Which evaluations are shown beside each other: those that were played in the same way."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from mtorl import InputError
from mtorl.envs.protocol import EvaluationSettings, Protocol, TaskVisibility
from mtorl.envs.references import ReferenceName
from mtorl.envs.results import EvalReport
from mtorl.runs.run import Run

REFERENCES = get_args(ReferenceName)
"""Names of the policies that others are measured against."""


@dataclass(frozen=True)
class Asked:
    """What is asked of an evaluation; None: whatever says most.

    Attributes:
        goals: Goals per task.
        goal_visible: With the goal shown or hidden; as in the data by default.
        task_identity: Where the task was told (shown) or not (hidden).
        demonstrated: Where an episode of the task was shown, or none.
        act_with: Which policy of an agent that has several was played.
    """

    goals: int | None = None
    goal_visible: bool | None = None
    task_identity: TaskVisibility | None = None
    demonstrated: bool | None = None
    act_with: str | None = None

    def fits(self, settings: EvaluationSettings) -> bool:
        """Whether an evaluation is one of those."""
        return (
            self.goals in (None, settings.protocol.goals)
            and self.goal_visible in (None, settings.goal_visible)
            and self.task_identity in (None, settings.protocol.task_identity)
            and self.demonstrated in (None, bool(settings.shown))
            and self.act_with in (None, settings.act_with or "")
        )

    def seen_from(self, run: Run, settings: EvaluationSettings) -> EvaluationSettings:
        """The settings with goals that are visible where they are as in the run's data, unless goals are asked for."""
        usual = run.suite().goal_visible if self.goal_visible is None else True
        return replace(settings, goal_visible=settings.goal_visible == usual)


def choose(runs: Sequence[Run], reports: Sequence[Sequence[EvalReport]], asked: Asked) -> list[EvalReport]:
    """For every run the evaluation with the same settings, the one that says most.

    Args:
        runs: The runs.
        reports: The evaluations of each.
        asked: Which are to be chosen from.

    Raises:
        InputError: The runs have none in common.
    """
    each = [
        {asked.seen_from(run, report.settings).preference: report for report in found}
        for run, found in zip(runs, reports, strict=True)
    ]
    common = set.intersection(
        *({key for key, report in found.items() if asked.fits(report.settings)} for found in each)
    )
    if not common:
        there = "; ".join(
            f"{run.folder}: {', '.join(report.settings.label for report in found.values())}"
            for run, found in zip(runs, each, strict=True)
        )
        raise InputError(f"no evaluation with the same settings in all runs ({there}). Evaluate all in the same way.")
    best = min(common)
    return [found[best] for found in each]


def differences(one: EvalReport, other: EvalReport) -> list[str]:
    """What stands between two reports that are to be compared, in a word or two each."""
    reference = one.policy in REFERENCES or other.policy in REFERENCES
    ignored = {"benchmark", "tasks", "fast"}  # they choose tasks, which are compared, or speed
    if reference:
        ignored.add("goal_visible")  # reference policies do not depend on it

    def settings(report: EvalReport) -> dict[str, Any]:
        return {key: value for key, value in report.suite["init_args"].items() if key not in ignored}

    pairs = {
        "versions": (one.versions, other.versions),
        "suite": (one.suite["class_path"], other.suite["class_path"]),
        "suite settings": (settings(one), settings(other)),
    }
    found = ["tasks"] if one.task_names != other.task_names else []
    found += one.settings.differences(other.settings, reference)
    return found + [name for name, (first, second) in pairs.items() if first != second]


def report_of(folder: Path, protocol: Protocol) -> EvalReport:
    """The evaluation of a run's last checkpoint with just that protocol, in the suite as the run knows it.

    Raises:
        InputError: There is none.
    """
    run, asked = Run(folder), EvaluationSettings.asked(protocol)
    suite = protocol.plays(run.suite()).describe()
    found = [it for it in run.reports(protocol.name) if it.suite == suite and _is(it.settings, asked)]
    if not found:
        raise InputError(f"{folder} has no evaluation with {protocol}. Evaluate it first.")
    return found[0]


def _is(settings: EvaluationSettings, asked: EvaluationSettings) -> bool:
    return replace(settings, goal_visible=asked.goal_visible) == asked
