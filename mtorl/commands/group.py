"""Find groups of tasks from the gradients of a trained run."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.families import load
    from mtorl.reports.tables import show_grouping
    from mtorl.runs.run import Run
    from mtorl.trainers.groupers import AgreementKMeans, TaskGrouper

    load("groupers")

    def group(groups: int, out: str, grouper: TaskGrouper | None = None, checkpoint: str = "last") -> None:
        """Finds groups of tasks from the gradients of a trained run, for `mtorl train --grouping`.

        Args:
            groups: How many groups.
            out: File of the grouping.
            grouper: How; AgreementKMeans by default.
            checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
        """

    parser = parser_of("group", group)
    parser.add_argument("run", type=str, help="Folder of a trained run.")
    options = objects(parser, arguments)
    grouping = Run(options["run"]).group(
        options["grouper"] or AgreementKMeans(), options["groups"], options["checkpoint"]
    )
    grouping.save(options["out"])
    show_grouping(grouping)
    print(f"saved: {options['out']}")
