"""The evaluations that a run's folder keeps."""

import warnings
from dataclasses import replace
from pathlib import Path

from mtorl import InputError
from mtorl.envs.protocol import ProtocolName
from mtorl.envs.results import SOURCE, EvalReport
from mtorl.files import DamageWarning, sha256
from mtorl.schema import Record, check
from mtorl.trainers.checkpoint import CheckpointFolder

OF_A_RUN = Record({name: SOURCE[name] for name in ("checkpoint", "step", "sha256")})
"""What identifies the policy in an evaluation of a run."""


def kept_reports(
    folder: Path, checkpoints: CheckpointFolder, protocol: ProtocolName, checkpoint: str
) -> list[EvalReport]:
    """The evaluations of a checkpoint as it is now, those with most goals first; see `Run.reports`.

    Args:
        folder: Of the run.
        checkpoints: Of the run.
        protocol: Which protocol.
        checkpoint: `last`, `best` on training goals, or a step.

    Raises:
        InputError: There is none, or all are of an earlier state of the checkpoint.
    """
    again = f"Run `mtorl evaluate {folder} --protocol {protocol} --checkpoint {checkpoint}`"
    reports = [report for report in _found(folder, protocol, checkpoint) if report.source.point is None]
    if not reports:
        raise InputError(f"{folder} has no {protocol} evaluation of its checkpoint {checkpoint}. {again} first.")
    if checkpoints.steps():
        file = checkpoints.file(checkpoint)
        current = sha256(file) if file.exists() else None  # deleted since: nothing contradicts the evaluation
        fresh = [report for report in reports if current in (None, report.source.sha256)]
        if not fresh:
            raise InputError(
                f"the {protocol} evaluations of {folder} are of step {reports[-1].source.step}; its "
                f"checkpoint {checkpoint} has changed since. {again} again."
            )
        reports = fresh
    return sorted(reports, key=lambda report: -report.protocol.goals)


def kept_front(folder: Path, shown: EvalReport) -> list[EvalReport]:
    """The evaluations at points of the run's manifold that were played as another one; see `Run.evaluate_along`.

    Args:
        folder: Of the run.
        shown: The other one, which is kept there too.
    """
    reports = _found(folder, shown.protocol.name, shown.source.checkpoint or "last")
    mine = [it for it in reports if it.source.point is not None and it.source.sha256 == shown.source.sha256]
    mine = [it for it in mine if replace(it.settings, point=None) == shown.settings]
    return sorted(mine, key=lambda report: report.source.point or (), reverse=True)


def _found(folder: Path, protocol: ProtocolName, checkpoint: str) -> list[EvalReport]:
    read = [_readable(path) for path in sorted((folder / "evaluations").glob(f"{protocol}-*.json"))]
    asked = protocol, checkpoint
    return [report for report in read if report and (report.protocol.name, report.source.checkpoint) == asked]


def _readable(path: Path) -> EvalReport | None:
    """The evaluation of a run in that file; None, with a warning, if there is none."""
    try:
        report = EvalReport.load(path)
        check(report.source.plain(), OF_A_RUN, f"evaluation report {path}: its source", "Evaluate again.")
    except InputError as error:
        warnings.warn(f"{error} It is left out.", DamageWarning, stacklevel=5)
        return None
    return report
