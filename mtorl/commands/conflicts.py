"""Show where tasks quarrel: their gradients at a run's parameters, and what sharing these costs."""

from pathlib import Path
from typing import Any

from mtorl import InputError


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of

    def conflicts(
        checkpoint: str = "last",
        batches: int = 32,
        windows: int | None = None,
        recorded: str | None = None,
        out: str | None = None,
    ) -> None:
        """Shows how the gradients of a run's tasks stand to each other on fresh windows of its data; with --single also
        the price of sharing: errors of actions over those of models for single tasks.

        Args:
            checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
            batches: Batches that gradients are the mean of: few leave noise, which draws cosines to zero.
            windows: Windows of each task in a batch; as in training by default.
            recorded: With --single, a data set of all tasks whose actions are compared; of held-out goals, best.
            out: File of the result (JSON); conflicts-CHECKPOINT.json in the run's folder by default, where reports
                find it. A price of sharing that it holds of the same weights is kept.
        """

    parser = parser_of("conflicts", conflicts)
    parser.add_argument("run", type=str, help="Folder of a trained run.")
    parser.add_argument(
        "--single",
        type=str,
        nargs="+",
        help="Also measure the price of sharing, with these runs for single tasks, or folders that hold such; "
        "otherwise trained alike.",
    )
    _measure(objects(parser, arguments))


def _measure(options: dict[str, Any]) -> None:
    from dataclasses import replace

    from mtorl.reports.conflicts import show_conflicts
    from mtorl.runs.conflicts import conflicts_path, kept_price, measure_conflicts
    from mtorl.runs.run import Run
    from mtorl.runs.sharing_price import sharing_price

    trained, checkpoint = Run(options["run"]), options["checkpoint"]
    if (options["single"] is None) != (options["recorded"] is None):
        raise InputError(
            "the price of sharing needs both --single, with runs for single tasks, and --recorded, with a data set "
            "whose actions are compared (mtorl collect --split heldout). Give both or none."
        )
    target = Path(options["out"] or conflicts_path(trained, checkpoint))
    price = options["single"] and sharing_price(trained, options["single"], options["recorded"], checkpoint)
    found = measure_conflicts(trained, checkpoint, options["batches"], options["windows"])
    found = replace(found, price=price or kept_price(target, found.source))
    found.save(target)
    show_conflicts(found)
    print(f"saved: {target}")
