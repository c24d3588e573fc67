"""Find groups of tasks from a trained run and its data."""

from pathlib import Path
from typing import Any

from mtorl import InputError


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.families import load
    from mtorl.trainers.groupers import TaskGrouper

    load("groupers")

    def group(
        groups: int,
        out: str,
        method: TaskGrouper | None = None,
        grouper: TaskGrouper | None = None,
        checkpoint: str = "last",
    ) -> None:
        """Finds groups of tasks from a trained run and its data, for `mtorl train --grouping`.

        Args:
            groups: How many groups.
            out: File of the grouping; a picture of how close tasks are comes beside it (.svg).
            method: How, see `mtorl list groupers`; AgreementKMeans by default.
            grouper: Another name of --method.
            checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
        """

    parser = parser_of("group", group)
    parser.add_argument("run", type=str, help="Folder of a trained run.")
    _group(objects(parser, arguments))


def _group(options: dict[str, Any]) -> None:
    from mtorl.reports.charts.base import write_picture
    from mtorl.reports.charts.grouping import draw_grouping
    from mtorl.reports.tables import show_grouping
    from mtorl.runs.run import Run
    from mtorl.trainers.groupers import AgreementKMeans

    if options["method"] is not None and options["grouper"] is not None:
        raise InputError("--method and --grouper are two names of one option; give one of them.")
    picture = Path(options["out"]).with_suffix(".svg")
    if picture == Path(options["out"]):
        raise InputError(f"--out is {picture}, the name of the picture; expected one such as {picture.stem}.json.")
    way = options["method"] or options["grouper"] or AgreementKMeans()
    grouping = Run(options["run"]).group(way, options["groups"], options["checkpoint"])
    grouping.save(options["out"])
    write_picture(draw_grouping(grouping), picture)
    show_grouping(grouping)
    print(f"saved: {options['out']}, {picture}")
