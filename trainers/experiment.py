"""Whole runs: from a configuration to a folder that holds everything needed to judge it and to run it again.

A run's folder:

| file | content |
|---|---|
| `config.yaml` | the resolved configuration |
| `data_spec.json` | what the agent knew of its data; evaluation needs no data set |
| `run.json` | versions, machine, command |
| `log.jsonl`, `tensorboard/` | losses and success on training goals |
| `checkpoints/` | the last few, and the best on training goals |
| `evaluations/` | one report per protocol |
"""

import copy
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import yaml
from jsonargparse import Namespace
from threadpoolctl import threadpool_limits

from mtorl import InputError, __version__
from mtorl.agents import Agent
from mtorl.arguments import Parser
from mtorl.datasets.files import locked, read_json, remove_leftovers, write_atomically, write_json
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.spec import DataSpec, describe_stores, open_stores
from mtorl.datasets.store import EpisodeStore, sha256
from mtorl.envs.base import Suite, build_suite
from mtorl.envs.evaluator import EvalReport, Protocol, ProtocolName, evaluate
from mtorl.envs.workers import WorkerPool
from mtorl.trainers.balancers import Balancer
from mtorl.trainers.checkpoint import CheckpointFolder
from mtorl.trainers.executions import Execution
from mtorl.trainers.logs import RunLog
from mtorl.trainers.offline import OfflineTrainer, Schedule
from mtorl.trainers.optimizer import OptimizerSettings
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.seeding import isolated, numpy_stream
from mtorl.trainers.sharing import Sharing

FREE_KEYS = ("workers", "quiet", "data", "verify")
"""Settings that do not change results (data is known by its hash); a run may be resumed with others."""
FREE_OPTIONS = ("allow_inexact_resume",)
"""Options of single classes with which a run may be resumed though it began with others."""
DEFAULT_CLASSES = {
    "agent": "mtorl.agents.BehaviorCloning",
    "balancer": "mtorl.trainers.balancers.Equal",
    "sharing": "mtorl.trainers.sharing.Shared",
}
PACKAGES = ("torch", "numpy", "scipy", "gymnasium", "metaworld", "mujoco", "einops", "jsonargparse", "tensorboard")


@dataclass(frozen=True)
class Experiment:
    """Trains one policy for all tasks of a data set.

    Attributes:
        data: Folders made by `mtorl collect`; several are used together.
        out: Folder of the run; must not hold another one.
        agent: The policy and its losses.
        balancer: How the task losses become one move.
        sharing: Which parameters each task computes with.
        optimizer: Learning rate and the rest.
        schedule: When training logs, evaluates, saves and ends.
        tasks: Train on these tasks of the data only.
        windows: Windows per task in a batch.
        tasks_per_batch: Tasks in a batch; all by default.
        order: Which tasks come into a batch of fewer.
        evaluate_goals: Training goals per task that evaluations during training play, stopping at success.
        execution: How the gradients of single tasks are computed, for balancers that need them: loop (one task after
            the other), vmap (all at once, for GPUs), joint (to check the others), auto (loop on the CPU, else vmap).
        keep: Checkpoints to keep, besides the best on training goals.
        seed: Derives all random streams.
        device: Where to train: cpu, cuda, cuda:1.
        threads: CPU threads of training; torch's choice by default.
        dtype: Precision of training.
        workers: Processes that play episodes in evaluations.
        verify: Check the hashes and values of the data before training.
        quiet: Show no progress.
    """

    data: list[str]
    out: str
    agent: Callable[[DataSpec], Agent]
    balancer: Balancer
    sharing: Sharing
    optimizer: OptimizerSettings
    schedule: Schedule
    tasks: list[str] | None = None
    windows: int = 64
    tasks_per_batch: int | None = None
    order: Literal["random", "round_robin"] = "random"
    evaluate_goals: int = 10
    execution: Execution = "auto"
    keep: int = 2
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    dtype: Literal["float32", "float64"] = "float32"
    workers: int = 2
    verify: bool = True
    quiet: bool = False

    def open_data(self) -> tuple[list[EpisodeStore], DataSpec]:
        """The data sets, verified if asked for, and what the agent must know of them."""
        stores = open_stores(self.data)
        for store in stores if self.verify else ():
            store.verify()
        return stores, describe_stores(stores, self.tasks)

    def build_agent(self, spec: DataSpec) -> Agent:
        """The agent with its initial weights, which are a function of the seed."""
        with isolated(self.seed, "init"):
            return self.agent(spec)

    def build_probe(self, stores: Sequence[EpisodeStore], spec: DataSpec, length: int) -> TaskSampler:
        """Draws windows of all tasks from a stream of its own."""
        return TaskSampler(stores, spec.task_names, self.windows, length, numpy_stream(self.seed, "probe"))

    def build_sampler(self, stores: Sequence[EpisodeStore], spec: DataSpec, length: int) -> TaskSampler:
        """Draws windows of that many steps."""
        stream = numpy_stream(self.seed, "data")
        return TaskSampler(stores, spec.task_names, self.windows, length, stream, self.tasks_per_batch, self.order)

    def check(self, stores: Sequence[EpisodeStore], spec: DataSpec) -> None:
        """Raises InputError for whatever would fail later; called before anything is written."""
        for name, value, least in (
            ("seed", self.seed, 0),
            ("workers", self.workers, 0),
            ("threads", 1 if self.threads is None else self.threads, 1),
        ):
            if value < least:
                raise InputError(f"{name} is {value}; expected at least {least}.")
        self.build_sampler(stores, spec, 1)
        find_device(self.device)
        suite = suite_of(spec)
        found, expected = (spec.observation_dim, spec.action_dim), (suite.observation_dim, suite.action_dim)
        if found != expected:
            raise InputError(
                f"the data in {', '.join(self.data)} have observation and action dimensions {found}, their suite "
                f"{type(suite).__name__} has {expected}: the policy could not be played. Collect the data again."
            )
        goals = suite.goals("train")
        if not 1 <= self.evaluate_goals <= len(goals):
            raise InputError(
                f"evaluate_goals is {self.evaluate_goals}; expected 1 to {len(goals)}, the training goals."
            )
        checkpoints = CheckpointFolder(Path(self.out), self.keep)
        with _threads(self.threads):  # a step on few windows, thrown away: what does not fit together fails here
            few = replace(self, windows=1, schedule=replace(self.schedule, log_every=0, monitor_every=0, steps=1 << 60))
            few.build_trainer(stores, spec, cast(RunLog, None), checkpoints, _never, {}).advance()

    def build_trainer(
        self,
        stores: Sequence[EpisodeStore],
        spec: DataSpec,
        log: RunLog,
        checkpoints: CheckpointFolder,
        evaluate: Callable[[TaskPolicy], EvalReport],
        config: dict[str, Any],
    ) -> OfflineTrainer:
        """Everything that training needs, from what was configured."""
        agent = self.build_agent(spec)
        agent.to(find_device(self.device), getattr(torch, self.dtype))
        return OfflineTrainer(
            agent,
            self.build_sampler(stores, spec, agent.window),
            self.build_probe(stores, spec, agent.window),
            self.balancer,
            self.sharing,
            self.optimizer,
            self.schedule,
            self.seed,
            log,
            checkpoints,
            evaluate,
            config,
            self.execution,
            self.quiet,
        )


def _never(policy: TaskPolicy) -> EvalReport:
    raise AssertionError("nothing is evaluated here")


def suite_of(spec: DataSpec) -> Suite:
    """The suite that a data set was recorded in, with the tasks that are used of it."""
    return build_suite(spec.suite).subset(spec.task_names)


def train_parser() -> Parser:
    """The parser whose schema is the signature of `Experiment`."""
    description = (
        f"{(Experiment.__doc__ or '').splitlines()[0]} An interrupted run continues with `mtorl train --resume RUN`."
    )
    parser = Parser(DEFAULT_CLASSES, ("data", "out"), prog="mtorl train", description=description)
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_class_arguments(Experiment, sub_configs=True)
    parser.set_defaults({family: {"class_path": path} for family, path in DEFAULT_CLASSES.items()})
    return parser


def build_experiment(config: Namespace) -> Experiment:
    """The configured objects."""
    objects = vars(train_parser().instantiate(config))
    return Experiment(**{name: value for name, value in objects.items() if name != "config"})


def train(config: str | Path | None = None, *, resume: str | Path | None = None, **options: Any) -> "Run":
    """Trains, from Python. Everything that `mtorl train --help` lists can be given.

    Args:
        config: A YAML file.
        resume: Folder of a run to continue instead.
        options: Options of `mtorl train`; nested ones as dictionaries, or with dots replaced by two underscores
            (`optimizer__lr=1e-4`).

    Returns:
        The finished run.
    """
    arguments = [f"--config={config}"] if config else []
    for name, value in options.items():
        name = name.replace("__", ".")
        if isinstance(value, Path):
            value = str(value)
        if name == "data" and isinstance(value, str):
            value = [value]
        arguments.append(f"--{name}={value if isinstance(value, str) else json.dumps(value, default=str)}")
    return Run(resume).resume(arguments) if resume else start(train_parser().parse_args(arguments))


def start(config: Namespace, command: Sequence[str] = ()) -> "Run":
    """Begins a new run.

    Args:
        config: From `train_parser`.
        command: The command line, to be kept with the run.

    Raises:
        InputError: The folder holds something already.
    """
    folder = Path(config.out)
    _refuse_occupied(folder)
    experiment = build_experiment(config)
    stores, spec = experiment.open_data()
    experiment.check(stores, spec)
    with locked(folder, "checkpoints"), _resumable(folder):
        _refuse_occupied(folder)  # by somebody who was faster
        write_json(folder / "data_spec.json", spec.to_json())
        write_json(folder / "run.json", describe_machine(command))
        text = yaml.safe_dump(plain_config(config), sort_keys=False)
        write_atomically(folder / "config.yaml", lambda file: file.write(text.encode()))
        run = Run(folder)
        run.train(experiment, stores, plain_config(config))
    return run


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


def plain_config(config: Namespace) -> dict[str, Any]:
    """The resolved configuration as plain values."""
    return yaml.safe_load(train_parser().dump(config))


class Run:
    """A folder that holds a run.

    Args:
        folder: The folder.

    Raises:
        InputError: No run is there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.name:  # "." has none, and reports need one
            self.folder = self.folder.resolve()
        if not (self.folder / "config.yaml").exists():
            raise InputError(
                f"no run in {self.folder}: expected a file config.yaml there. Start one with `mtorl train`."
            )
        self.spec = DataSpec.from_json(read_json(self.folder / "data_spec.json", "data specification"))

    def config(self, arguments: Sequence[str] = ()) -> Namespace:
        """The run's configuration, changed by more command-line arguments."""
        return train_parser().parse_args([f"--config={self.folder / 'config.yaml'}", *arguments])

    def resume(self, arguments: Sequence[str] = ()) -> "Run":
        """Continues an interrupted run from its last checkpoint; from the beginning if there is none yet.

        Raises:
            InputError: The configuration differs from the checkpoint's, or the data changed.
        """
        config = self.config(arguments)
        plain = plain_config(config)
        with locked(self.folder, "checkpoints"), _resumable(self.folder):
            for folder in (self.folder, self.folder / "checkpoints"):
                remove_leftovers(folder)
            state = self.checkpoints().load() if self.checkpoints().steps() else None
            if state:
                _refuse_differences(_config_of(state), plain, f"checkpoint at step {state['step']}")
            else:
                _refuse_differences(plain_config(self.config()), plain, "run")
            experiment = build_experiment(config)
            stores, spec = experiment.open_data()
            if [entry["sha256"] for entry in spec.data] != [entry["sha256"] for entry in self.spec.data]:
                raise InputError(
                    f"the data in {', '.join(config.data)} is not what the run {self.folder} began with (the "
                    "manifests' hashes differ). Restore it, say where it is with --data, or start a new run."
                )
            self.train(experiment, stores, plain, state)
        return self

    def train(
        self,
        experiment: Experiment,
        stores: Sequence[EpisodeStore],
        config: dict[str, Any],
        state: dict[str, Any] | None = None,
    ) -> None:
        """Trains to the end; nobody else may be at work in the folder.

        Args:
            experiment: The configured objects.
            stores: The run's data.
            config: The resolved configuration, for the checkpoints.
            state: A checkpoint's content to go on from.
        """
        suite, protocol = self.suite(), Protocol("official", experiment.evaluate_goals, stop_at_success=True)
        log = RunLog(self.folder, state["step"] if state else 0)
        with _threads(experiment.threads), WorkerPool(experiment.workers) as pool:
            trainer = experiment.build_trainer(
                stores,
                self.spec,
                log,
                self.checkpoints(experiment.keep),
                lambda policy: evaluate(policy, suite, protocol, pool, "training goals", quiet=True),
                config,
            )
            try:
                if state:
                    trainer.load_state_dict(state)
                else:
                    log.rewind(0)
                trainer.run()
            finally:
                log.close()

    def checkpoints(self, keep: int = 1) -> CheckpointFolder:
        """The run's checkpoints."""
        return CheckpointFolder(self.folder / "checkpoints", keep)

    def suite(self) -> Suite:
        """The suite of the run's data, with the run's tasks."""
        return suite_of(self.spec)

    def policy(self, checkpoint: str = "last") -> tuple[TaskPolicy, dict[str, Any]]:
        """The trained policy of a checkpoint (`last`, `best` on training goals, or a step).

        Returns:
            The policy, and what identifies its weights: `checkpoint`, `step` and `sha256`.
        """
        config = self.config()
        experiment = build_experiment(config)
        state, digest = self.checkpoints().read(checkpoint)
        _refuse_differences(_config_of(state), plain_config(config), f"checkpoint at step {state['step']}")
        agent = experiment.build_agent(self.spec)
        agent.load_state_dict(state["agent"])
        sharing = {}
        for phase in agent.phases:
            member = copy.deepcopy(experiment.sharing)
            member.init(phase.space, len(self.spec.task_names), torch.Generator())
            member.load_state_dict(state["sharing"][phase.name])
            sharing[phase.name] = member
        return TaskPolicy(agent, sharing), {"checkpoint": checkpoint, "step": int(state["step"]), "sha256": digest}

    def evaluate(
        self,
        protocol: Protocol | ProtocolName = "heldout",
        checkpoint: str = "last",
        goal_visible: bool | None = None,
        out: str | Path | None = None,
        workers: int = 2,
        quiet: bool = False,
    ) -> EvalReport:
        """Plays the policy and keeps the report.

        Args:
            protocol: How to play; a name stands for that protocol's defaults.
            checkpoint: `last`, `best` on training goals, or a step.
            goal_visible: Show the goal's position or hide it; as in the data by default.
            out: Folder of the report; `evaluations` in the run's own by default.
            workers: Processes that play.
            quiet: Show no progress.
        """
        if isinstance(protocol, str):
            protocol = Protocol(protocol)
        policy, source = self.policy(checkpoint)
        suite = self.suite()
        if goal_visible is not None:
            suite = suite.changed(goal_visible=goal_visible)
        name = f"{self.folder.name} ({checkpoint}, step {source['step']})"
        target = self.report_path(protocol, checkpoint, goal_visible, out)
        with WorkerPool(workers) as pool:
            return evaluate(policy, suite, protocol, pool, name, out=target, source=source, quiet=quiet)

    def report_path(
        self,
        protocol: Protocol,
        checkpoint: str = "last",
        goal_visible: bool | None = None,
        out: str | Path | None = None,
    ) -> Path:
        """Where `evaluate` keeps the report: the name holds the settings, so that a quick look overwrites nothing."""
        words = [protocol.name, checkpoint]
        words += [] if goal_visible is None else ["goal-visible" if goal_visible else "goal-hidden"]
        words += ["stopped"] if protocol.stop_at_success else []
        words += [f"seed{protocol.seed}"] if protocol.seed else []
        return Path(out or self.folder / "evaluations") / f"{'-'.join([*words, str(protocol.goals)])}.json"

    def reports(self, protocol: ProtocolName = "heldout", checkpoint: str = "last") -> list[EvalReport]:
        """The kept evaluations of a checkpoint as it is now, those with most goals first.

        Raises:
            InputError: There is none, or all are of an earlier state of the checkpoint.
        """
        again = f"Run `mtorl evaluate {self.folder} --protocol {protocol} --checkpoint {checkpoint}`"
        loaded = [EvalReport.load(path) for path in sorted((self.folder / "evaluations").glob(f"{protocol}-*.json"))]
        loaded = [it for it in loaded if it.protocol.name == protocol and it.source.get("checkpoint") == checkpoint]
        if not loaded:
            raise InputError(
                f"{self.folder} has no {protocol} evaluation of its checkpoint {checkpoint}. {again} first."
            )
        if self.checkpoints().steps():
            file = self.checkpoints().file(checkpoint)
            current = sha256(file) if file.exists() else None  # deleted since: nothing contradicts the evaluation
            fresh = [it for it in loaded if current in (None, it.source["sha256"])]
            if not fresh:
                raise InputError(
                    f"the {protocol} evaluations of {self.folder} are of step {loaded[-1].source['step']}; its "
                    f"checkpoint {checkpoint} has changed since. {again} again."
                )
            loaded = fresh
        return sorted(loaded, key=lambda it: -it.protocol.goals)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Threads of torch. NumPy gets one: it solves small problems, at which threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        with threadpool_limits(1, "blas"):
            yield
    finally:
        torch.set_num_threads(before)


def _config_of(state: dict[str, Any]) -> dict[str, Any]:
    config = state.get("config")
    if not isinstance(config, dict):
        raise InputError("the checkpoint holds no configuration: mtorl did not write it. Train again.")
    return config


def find_device(name: str) -> torch.device:
    """The device of that name; raises InputError if it cannot be used here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here: {str(error).splitlines()[0]}. Try --device cpu."
        ) from None
    return device


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        parts = [_flatten(inner, f"{prefix}.{key}" if prefix else str(key)) for key, inner in value.items()]
        return {key: inner for part in parts for key, inner in part.items()}
    return {prefix: value}


def _refuse_differences(stored: dict[str, Any], asked: dict[str, Any], what: str) -> None:
    ours, theirs = _flatten(asked), _flatten(stored)
    differing = [
        f"{key}: {theirs.get(key)!r} in the {what}, {ours.get(key)!r} asked for"
        for key in sorted({*ours, *theirs})
        if ours.get(key) != theirs.get(key)
        and key.split(".")[0] not in FREE_KEYS
        and key.split(".")[-1] not in FREE_OPTIONS
    ]
    if differing:
        raise InputError(
            f"the configuration differs from that of the {what}: {'; '.join(differing)}. Resume with the same "
            "configuration, or start a new run."
        )


def describe_machine(command: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, machine and command, for `run.json`."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "mtorl": __version__,
        "command": list(command),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": versions,
    }
