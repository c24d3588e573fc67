"""Show where tasks quarrel: their gradients at a run's parameters, and what sharing these costs."""


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from dataclasses import replace
    from pathlib import Path

    from mtorl import InputError
    from mtorl.commands.base import objects, parser_of
    from mtorl.reports.tables import show_conflicts
    from mtorl.runs.conflicts import conflicts_path, measure_conflicts
    from mtorl.runs.run import Run
    from mtorl.runs.sharing_price import sharing_price

    def conflicts(
        checkpoint: str = "last",
        batches: int = 8,
        windows: int | None = None,
        recorded: str | None = None,
        out: str | None = None,
    ) -> None:
        """Shows where a run's tasks quarrel: cosines of their gradients on fresh windows, and what sharing costs.

        Args:
            checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
            batches: Batches that gradients are taken on.
            windows: Windows of each task in a batch; as in training by default.
            recorded: With --single, a data set of all tasks whose actions are compared; of held-out goals, best.
            out: File of the result (JSON); conflicts-CHECKPOINT.json in the run's folder by default, where reports
                find it.
        """

    parser = parser_of("conflicts", conflicts)
    parser.add_argument("run", type=str, help="Folder of a trained run.")
    parser.add_argument(
        "--single",
        nargs="+",
        help="Runs for single tasks, or folders that hold such, otherwise trained alike: for the price of sharing, the "
        "errors of actions over theirs.",
    )
    options = objects(parser, arguments)
    trained, checkpoint = Run(options["run"]), options["checkpoint"]
    if (options["single"] is None) != (options["recorded"] is None):
        raise InputError(
            "the price of sharing needs both --single, with runs for single tasks, and --recorded, with a data set "
            "whose actions are compared (mtorl collect --split heldout). Give both or none."
        )
    price = options["single"] and sharing_price(trained, options["single"], options["recorded"], checkpoint)
    found = replace(measure_conflicts(trained, checkpoint, options["batches"], options["windows"]), price=price or None)
    target = Path(options["out"] or conflicts_path(trained, checkpoint))
    found.save(target)
    show_conflicts(found)
    print(f"saved: {target}")
