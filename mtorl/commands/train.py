"""Train one policy for all tasks of a data set; --resume continues a run."""

import itertools


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.runs.configuration import Configuration
    from mtorl.runs.run import Run
    from mtorl.runs.training import continue_run, start
    from mtorl.trainers.processes import joined, leads, leave

    resumed = [value for option, value in _pairs(arguments) if option == "--resume"]
    with joined():
        if resumed:
            trained = continue_run(Run(resumed[-1]), _without(arguments, "--resume"))
        else:
            trained = start(Configuration.parse(arguments), ["mtorl", "train", *arguments])
        if leads():
            folder = trained.folder
            print(f"trained: {folder}. Next: `mtorl evaluate {folder}`, then `mtorl report {folder}`.")
    leave()


def _pairs(arguments: list[str]) -> list[tuple[str, str]]:
    """Options and their values, for `--option value` and `--option=value`."""
    split = [part for argument in arguments for part in argument.split("=", 1)]
    return list(itertools.pairwise(split))


def _without(arguments: list[str], option: str) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == option:
            skip = True
        elif not argument.startswith(f"{option}="):
            kept.append(argument)
    return kept
