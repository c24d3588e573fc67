"""Runs begun and continued."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.evaluator import evaluate
from mtorl.envs.protocol import Protocol
from mtorl.envs.workers import WorkerPool
from mtorl.files import locked, remove_leftovers, write_atomically, write_json
from mtorl.runs.configuration import Configuration, command_line
from mtorl.runs.experiment import Experiment
from mtorl.runs.provenance import describe_machine, limited_threads
from mtorl.runs.run import Run
from mtorl.schema import State
from mtorl.trainers.logs import RunLog


def train(
    config: str | Path | Sequence[str | Path] | Experiment = (),
    *,
    resume: str | Path | Run | None = None,
    **options: Any,
) -> Run:
    """Trains, from Python. Everything that `mtorl train --help` lists can be given.

    Args:
        config: A YAML file, or several: later ones beat earlier ones; or an `Experiment`, whose objects are used.
        resume: Folder of a run to continue instead.
        options: Options of `mtorl train`; nested ones as dictionaries, or with dots replaced by two underscores
            (`optimizer__lr=1e-4`).

    Returns:
        The finished run.
    """
    if isinstance(config, Experiment):
        if resume or options:
            raise InputError("an Experiment says everything; found options beside it. Use dataclasses.replace.")
        return start(Configuration.of(config), experiment=config)
    arguments = command_line(config, options)
    return continue_run(Run(resume), arguments) if resume else start(Configuration.parse(arguments))


def start(configuration: Configuration, command: Sequence[str] = (), experiment: Experiment | None = None) -> Run:
    """Begins a new run.

    Args:
        configuration: All of its options.
        command: The command line, to be kept with the run.
        experiment: The objects that the configuration describes; built from it by default.

    Raises:
        InputError: The folder holds something already.
    """
    folder = configuration.out
    _refuse_occupied(folder)
    experiment = experiment or configuration.experiment()
    stores, spec = experiment.open_data()
    experiment.check(stores, spec)
    with locked(folder, "checkpoints"), _resumable(folder):
        _refuse_occupied(folder)  # by somebody who was faster
        write_json(folder / "data_spec.json", spec.to_json())
        write_json(folder / "run.json", describe_machine(command) | {"threads": experiment.choose_threads(spec)})
        write_atomically(folder / "config.yaml", lambda file: file.write(configuration.dump().encode()))
        run = Run(folder)
        _train(run, experiment, stores, configuration)
    return run


def continue_run(run: Run, arguments: Sequence[str] = ()) -> Run:
    """Continues an interrupted run from its last checkpoint; from the beginning if there is none yet.

    Args:
        run: The run.
        arguments: Options to change of those that change no results.

    Raises:
        InputError: The configuration differs from the checkpoint's, or the data changed.
    """
    configuration = run.read_configuration(arguments)
    with locked(run.folder, "checkpoints"), _resumable(run.folder):
        for folder in (run.folder, run.folder / "checkpoints"):
            remove_leftovers(folder)
        state = run.checkpoints().load() if run.checkpoints().steps() else None
        run.refuse_another_configuration(configuration, state)
        experiment = configuration.experiment()
        stores, spec = experiment.open_data()
        run.refuse_other_data(spec, experiment.data)
        _train(run, experiment, stores, configuration, state)
    return run


def _train(
    run: Run,
    experiment: Experiment,
    stores: Sequence[EpisodeStore],
    configuration: Configuration,
    state: State | None = None,
) -> None:
    """Trains to the end; nobody else may be at work in the folder.

    Args:
        run: The run.
        experiment: The configured objects.
        stores: The run's data.
        configuration: The resolved configuration, for the checkpoints.
        state: A checkpoint's content to go on from.
    """
    suite, protocol = run.suite(), Protocol("official", experiment.evaluate_goals, stop_at_success=True)
    log = RunLog(run.folder, state["step"] if state else 0)
    threads = experiment.threads or run.machine().get("threads")  # torch's choice where that was not noted
    with limited_threads(threads), WorkerPool(experiment.workers) as pool:
        trainer = experiment.build_trainer(
            stores,
            run.spec,
            log,
            run.checkpoints(experiment.keep),
            lambda policy: evaluate(policy, suite, protocol, pool, "training goals", quiet=True),
            configuration.plain,
        )
        try:
            if state:
                trainer.load_state_dict(state)
            else:
                log.rewind(0)
            trainer.run()
        finally:
            log.close()


def _refuse_occupied(folder: Path) -> None:
    """Raises InputError if something is there besides what a run that was killed at its very beginning leaves."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder for the run. Choose another --out.")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if any(name not in ("data_spec.json", "run.json") and not name.endswith(".tmp") for name in names):
        holds = "another run" if (folder / "config.yaml").exists() else "other files"
        raise InputError(
            f"{folder} already holds {holds}. Choose another --out, continue it with `mtorl train --resume {folder}`, "
            "or delete it."
        )


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Makes Ctrl-C say how to continue, once there is a run."""
    try:
        yield
    except KeyboardInterrupt:
        if not (folder / "config.yaml").exists():
            raise
        raise KeyboardInterrupt(f"continue with `mtorl train --resume {shlex.quote(str(folder))}`") from None
