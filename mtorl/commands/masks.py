"""Show what a run's masks are like; --export writes them to a file."""

from mtorl import InputError


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.reports.masks import export_masks, summarise
    from mtorl.reports.tables import show_masks
    from mtorl.runs.run import Run

    def masks(checkpoint: str = "last", export: str | None = None) -> None:
        """Shows what the masks of a run are like: densities, what tasks have in common, how far they moved.

        Args:
            checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
            export: Also write the masks to this file (safetensors): bool [tasks, rows, columns] by the matrix's name.
        """

    parser = parser_of("masks", masks)
    parser.add_argument("run", type=str, help="Folder of a trained run.")
    options = objects(parser, arguments)
    trained = Run(options["run"])
    summaries = summarise(trained, options["checkpoint"])
    if not summaries:
        raise InputError(f"{trained.folder} has no masks: it was trained with a sharing that has none, such as Shared.")
    for summary in summaries:
        show_masks(summary)
    if options["export"]:
        print(f"exported: {export_masks(trained, options['export'], options['checkpoint'])}")
