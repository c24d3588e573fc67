"""Runs and the trackers that follow them."""

from contextlib import closing

from mtorl.envs.results import EvalReport
from mtorl.runs.folder import RunFolder
from mtorl.trainers.trackers import Tracker
from mtorl.trainers.tracking import Tracking


def tracking_of(run: RunFolder, tracker: Tracker | None) -> Tracking | None:
    """A tracker that begins to follow a run, or goes on; None for none.

    Args:
        run: The run; that of a group is named after the whole run, too.
        tracker: The tracker.
    """
    if tracker is None:
        return None
    folder = run.folder.resolve()
    member = (folder.parent / "config.yaml").exists()
    name = f"{folder.parent.name}-{folder.name}" if member else folder.name
    return Tracking(tracker, name, run.folder, run.configuration.plain)


def follower(run: RunFolder) -> Tracking | None:
    """The run's own tracker, to be told more; none for entries of the zoo, which are somebody else's."""
    if run.configuration.options.tracker is None or run.home != run.folder:
        return None
    return tracking_of(run, run.configuration.experiment().tracker)


def tell(run: RunFolder, report: EvalReport) -> None:
    """Gives an evaluation to the run's tracker: success and return of every task as numbers and as a table."""
    tracking = follower(run)
    if tracking is None:
        return
    step, name = report.source.step or 0, report.path.stem if report.path else report.settings.key
    rows = report.tasks()
    with closing(tracking):
        numbers = {f"{name}/{row.measure.scale.name}/{row.task}": row.measure.value for row in rows}
        means = {f"{name}/mean {it.scale.name}": it.value for it in report.means}
        tracking.log(step, numbers | means)
        columns = ["task", "measure", "value", "low", "high", "episodes", "mean return"]
        tracking.table(
            step,
            f"{name}/table",
            columns,
            [
                [row.task, it.scale.name, it.value, it.low, it.high, row.episodes, row.mean_return]
                for row in rows
                for it in [row.measure]
            ],
        )
        if report.path:
            tracking.file(step, name, report.path)
