"""Show what a data set holds, task by task, or the models of a run; --verify checks every byte of a data set."""

from pathlib import Path

from mtorl import InputError


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.datasets.store import EpisodeStore
    from mtorl.reports.tables import show_store

    def info() -> None:
        """Shows what a data set holds (per task episodes, steps, returns, success; origin), or a run's models."""

    parser = parser_of("info", info)
    parser.add_argument("data", type=str, help="Folder of the data set, or of a run.")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="Also read everything once and recompute what the data set says of itself.",
    )
    options = objects(parser, arguments)
    if (Path(options["data"]) / "config.yaml").exists():
        _show_run(options["data"], options["verify"])
        return
    store = EpisodeStore(options["data"])
    show_store(store)
    if options["verify"]:
        from mtorl.datasets.parents import parents_of
        from mtorl.envs.base import check_recorded

        parents = parents_of(store)
        store.verify()
        there = [parent.verify(store) for parent in parents]
        check_recorded(store)
        print(
            "verified: all hashes match, all numbers are finite, all actions lie in [-1, 1], returns-to-go are the sums"
            " of rewards, the statistics of tasks are those of their episodes, the suite has its tasks and dimensions"
            + (f", {sum(there)} of {len(there)} parents are still there and unchanged." if there else ".")
        )


def _show_run(folder: str, verify: bool) -> None:
    from mtorl.reports.tables import show_run
    from mtorl.runs.run import Run

    if verify:
        raise InputError(f"--verify is for data sets; {folder} is a run. Leave it out, or give the folder of its data.")
    show_run(Run(folder))
