"""Runs begun and continued."""

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.evaluator import evaluate
from mtorl.envs.protocol import Protocol
from mtorl.files import locked, regular, remove_leftovers, write_atomically, write_json
from mtorl.runs.configuration import Configuration, command_line
from mtorl.runs.experiment import Experiment
from mtorl.runs.members import GROUPING, Member, folder_of, members_of
from mtorl.runs.provenance import describe_machine, limited_threads
from mtorl.runs.run import Run
from mtorl.runs.tracking import tracking_of
from mtorl.schema import State
from mtorl.trainers.logs import NoLog, RunLog
from mtorl.trainers.processes import joined, leads, wait, worker_pool
from mtorl.trainers.schedule import Schedule


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
    with joined():
        return _start(configuration, command, experiment or configuration.experiment())


def _start(configuration: Configuration, command: Sequence[str], experiment: Experiment) -> Run:
    folder = configuration.out
    _refuse_occupied(folder)
    stores, spec = experiment.open_data()
    whole = Member(configuration, experiment, spec)
    members = members_of(whole, folder, stores) if experiment.per_group else []
    for number, member in enumerate(members):
        with _naming_group(number, member):
            member.check(stores)
    if not members:
        whole.check(stores)
    with _held(folder):
        _refuse_occupied(folder)  # by somebody who was faster
        run = _write_descriptions(folder, whole, command)
        if experiment.per_group:
            _finish(run, members, stores, command)
        else:
            _train(run, whole, stores)
    return run


def continue_run(run: Run, arguments: Sequence[str] = ()) -> Run:
    """Continues an interrupted run from its last checkpoint; from the beginning if there is none yet.

    Of a run of several models those that are finished are left alone.

    Args:
        run: The run.
        arguments: Options to change of those that change no results.

    Raises:
        InputError: The configuration differs from the checkpoint's, or the data changed.
    """
    configuration = run.read_configuration(arguments)
    with joined(), _held(run.folder):
        state = _last_state(run)
        run.refuse_another_configuration(configuration, state)
        experiment = run.with_own_groups(configuration.experiment())
        stores, spec = experiment.open_data()
        run.refuse_other_data(spec, experiment.data)
        whole = Member(configuration, experiment, run.spec)
        if run.per_group:
            _finish(run, members_of(whole, run.folder, stores), stores, run.machine()["command"])
        else:
            _train(run, whole, stores, state)
    return run


def _last_state(run: Run) -> State | None:
    """The checkpoint that a run goes on from, if there is one; removes what a killed process left."""
    for folder in (run.folder, run.folder / "checkpoints") if leads() else ():
        remove_leftovers(folder)
    wait()
    state = run.checkpoints().load() if not run.per_group and run.checkpoints().steps() else None
    if state is not None and not state["optimizers"] and not state["sampler"]:
        raise InputError(
            f"{run.folder} was made for acting alone (`mtorl export --format run`): its checkpoint has nothing to go "
            "on from. Train anew with its config.yaml and another --out."
        )
    return state


def _finish(run: Run, members: Sequence[Member], stores: Sequence[EpisodeStore], command: Sequence[str]) -> None:
    """Trains the models of all groups, as far as they are not trained."""
    for group, member in enumerate(members):
        folder = run.folder / folder_of(group)
        with locked(folder, "checkpoints"), _naming_group(group, member):
            if not (folder / "config.yaml").exists():
                _refuse_occupied(folder)
                _train(_write_descriptions(folder, member, command), member, stores)
                continue
            own = Run(folder)
            state = _last_state(own)
            own.refuse_another_configuration(member.configuration, state)
            own.refuse_other_data(member.spec, member.experiment.data)
            if not _is_finished(member.experiment.schedule, state):
                _train(own, member, stores, state)


def _is_finished(schedule: Schedule, state: State | None) -> bool:
    """Whether nothing is left to do after a checkpoint: no step, and no evaluation of the last one."""
    if state is None or state["step"] < schedule.steps or not state["concluded"]:
        return False
    return state["evaluated"] == state["step"] or not schedule.evaluates(state["step"])


@contextmanager
def _naming_group(group: int, member: Member) -> Iterator[None]:
    """Says in errors which model they are about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"model of group {group} ({', '.join(member.spec.task_names)}): {error}") from error


def _write_descriptions(folder: Path, member: Member, command: Sequence[str]) -> Run:
    """Writes what makes a folder a run; the configuration comes last.

    Args:
        folder: The folder.
        member: The run.
        command: With which it was begun.
    """
    if not leads():
        wait()
        return Run(folder)
    machine, grouping = describe_machine(command), member.experiment.grouping
    if not member.experiment.per_group:
        machine["threads"] = member.experiment.choose_threads(member.spec)
    if grouping is not None:
        content = regular(Path(grouping), "grouping").read_bytes()
        write_atomically(folder / GROUPING, lambda file: file.write(content))
        machine["grouping"] = {"path": grouping, "sha256": hashlib.sha256(content).hexdigest()}
    write_json(folder / "data_spec.json", member.spec.to_json())
    write_json(folder / "run.json", machine)
    write_atomically(folder / "config.yaml", lambda file: file.write(member.configuration.dump().encode()))
    wait()
    return Run(folder)


def _train(run: Run, member: Member, stores: Sequence[EpisodeStore], state: State | None = None) -> None:
    """Trains to the end; nobody else may be at work in the folder.

    Args:
        run: The run.
        member: Its configuration and objects.
        stores: Its data.
        state: A checkpoint's content to go on from.
    """
    experiment = member.experiment
    suite, protocol = run.suite(), Protocol("official", experiment.evaluate_goals, stop_at_success=True)
    step = state["step"] if state else 0
    log = RunLog(run.folder, step, tracking_of(run, experiment.tracker)) if leads() else NoLog()
    threads = experiment.threads or run.machine().get("threads")  # torch's choice where that was not noted
    with limited_threads(threads), worker_pool(experiment.workers) as pool:
        trainer = experiment.build_trainer(
            stores,
            run.spec,
            log,
            run.checkpoints(experiment.keep),
            lambda policy: evaluate(policy, suite, protocol, pool, "training goals", quiet=True),
            member.configuration.plain,
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
    if not leads():  # the first process may be writing there by now
        return
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder for the run. Choose another --out.")
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    if any(name not in ("data_spec.json", "run.json", GROUPING) and not name.endswith(".tmp") for name in names):
        holds = "another run" if (folder / "config.yaml").exists() else "other files"
        raise InputError(
            f"{folder} already holds {holds}. Choose another --out, continue it with `mtorl train --resume {folder}`, "
            "or delete it."
        )


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Keeps a folder to this process, or to the processes of which it is one; Ctrl-C says how to continue."""
    with locked(folder, "checkpoints") if leads() else nullcontext(), _resumable(folder):
        yield


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Makes Ctrl-C say how to continue, once there is a run."""
    try:
        yield
    except KeyboardInterrupt:
        if not (folder / "config.yaml").exists():
            raise
        raise KeyboardInterrupt(f"continue with `mtorl train --resume {shlex.quote(str(folder))}`") from None
