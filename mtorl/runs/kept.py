"""The evaluations that a run's folder keeps."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from mtorl import InputError
from mtorl.envs.protocol import ProtocolName
from mtorl.envs.results import SOURCE, EvalReport
from mtorl.files import DamageWarning
from mtorl.schema import Record, check

OF_A_RUN = Record({name: SOURCE[name] for name in ("checkpoint", "step", "sha256")})
"""What identifies the policy in an evaluation of a run."""


def kept_reports(
    folders: Sequence[Path], current: str | None, protocol: ProtocolName, checkpoint: str
) -> list[EvalReport]:
    """The evaluations of a checkpoint as it is now, those with most goals first; see `Run.reports`.

    Args:
        folders: Of the run: its own, and where its results go, if that is another.
        current: Hash of the checkpoint as it is now; None: it was deleted since, and nothing contradicts evaluations.
        protocol: Which protocol.
        checkpoint: `last`, `best` on training goals, or a step.

    Raises:
        InputError: There is none, or all are of an earlier state of the checkpoint.
    """
    folder = folders[0]
    again = f"Run `mtorl evaluate {folder} --protocol {protocol} --checkpoint {checkpoint}`"
    read = [readable(path) for each in folders for path in sorted((each / "evaluations").glob(f"{protocol}-*.json"))]
    reports = [
        report
        for report in read
        if report and (report.protocol.name, report.source.checkpoint) == (protocol, checkpoint)
    ]
    if not reports:
        raise InputError(f"{folder} has no {protocol} evaluation of its checkpoint {checkpoint}. {again} first.")
    fresh = [report for report in reports if current in (None, report.source.sha256)]
    if not fresh:
        raise InputError(
            f"the {protocol} evaluations of {folder} are of step {reports[-1].source.step}; its "
            f"checkpoint {checkpoint} has changed since. {again} again."
        )
    return sorted(fresh, key=lambda report: -report.protocol.goals)


def readable(path: Path) -> EvalReport | None:
    """The evaluation of a run in that file; None, with a warning, if there is none."""
    try:
        report = EvalReport.load(path)
        check(report.source.plain(), OF_A_RUN, f"evaluation report {path}: its source", "Evaluate again.")
    except InputError as error:
        warnings.warn(f"{error} It is left out.", DamageWarning, stacklevel=4)
        return None
    return report
