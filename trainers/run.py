"""A run's folder: begun, continued, evaluated. It holds everything needed to judge the run and to do it again.

| file | content |
|---|---|
| `config.yaml` | the resolved configuration |
| `data_spec.json` | what the agent knew of its data; evaluation needs no data set |
| `run.json` | versions, machine, command, threads |
| `log.jsonl`, `tensorboard/` | losses and success on training goals |
| `checkpoints/` | the last few, and the best on training goals |
| `evaluations/` | one report per protocol, and errors of actions |
"""

import copy
import hashlib
import importlib.metadata
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from mtorl import InputError, __version__
from mtorl.agents import Agent
from mtorl.arguments import dump_yaml, inline_yaml
from mtorl.datasets.files import (
    DamageWarning,
    locked,
    read_json,
    regular,
    remove_leftovers,
    write_atomically,
    write_json,
)
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.spec import DataSpec, check_fits
from mtorl.datasets.store import EpisodeStore, sha256
from mtorl.envs.base import Suite
from mtorl.envs.evaluator import EvalReport, Protocol, ProtocolName, demonstrations_hash, evaluate
from mtorl.envs.workers import WorkerPool
from mtorl.schema import Integer, ListOf, MappingOf, Nullable, Number, Opaque, Plain, Record, Text, check
from mtorl.trainers.action_error import action_errors
from mtorl.trainers.checkpoint import CheckpointFolder, fitting, restore
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.experiment import (
    Experiment,
    build_experiment,
    limited_threads,
    plain_config,
    suite_of,
    train_parser,
)
from mtorl.trainers.groupers import TaskGrouper
from mtorl.trainers.logs import RunLog
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.seeding import isolated, torch_stream
from mtorl.trainers.sharing import Sharing

FREE_KEYS = ("workers", "quiet", "data", "verify")
"""Settings that do not change results (data is known by its hash); a run may be resumed with others."""
FREE_OPTIONS = ("allow_inexact_resume",)
"""Options of single classes with which a run may be resumed though it began with others."""
MACHINE = Record(
    {
        "mtorl": Text(),
        "command": ListOf(Text()),
        "python": Text(),
        "platform": Text(),
        "processors": Nullable(Integer(1)),
        "versions": MappingOf(Text()),
    },
    optional={"threads": Integer(1, 4096)},
)
"""What a run's run.json must hold; the first versions did not note the threads."""
SOURCE = Record({"checkpoint": Text(), "step": Integer(0), "sha256": Text()}, optional={"act_with": Text()})
"""What identifies the policy in an evaluation of a run."""
ACTION_ERRORS = Record(
    {
        "policy": Text(),
        "source": MappingOf(Plain()),
        "data": Record({"path": Text(), "sha256": Text()}),
        "mean_error": Number(0),
        "tasks": MappingOf(Number(0)),
    }
)
PACKAGES = ("torch", "numpy", "scipy", "gymnasium", "metaworld", "mujoco", "einops", "jsonargparse", "tensorboard")


def train(config: str | Path | Sequence[str | Path] = (), *, resume: str | Path | None = None, **options: Any) -> "Run":
    """Trains, from Python. Everything that `mtorl train --help` lists can be given.

    Args:
        config: A YAML file, or several: later ones beat earlier ones.
        resume: Folder of a run to continue instead.
        options: Options of `mtorl train`; nested ones as dictionaries, or with dots replaced by two underscores
            (`optimizer__lr=1e-4`).

    Returns:
        The finished run.
    """
    arguments = command_line(config, options)
    return Run(resume).resume(arguments) if resume else start(train_parser().parse_args(arguments))


def command_line(config: str | Path | Sequence[str | Path], options: Mapping[str, Any]) -> list[str]:
    """What `train` was called with as arguments of `mtorl train`."""
    arguments = [f"--config={file}" for file in ([config] if isinstance(config, str | Path) else config)]
    for name, value in options.items():
        name = name.replace("__", ".")
        if isinstance(value, Path):
            value = str(value)
        if name == "data" and isinstance(value, str):
            value = [value]
        arguments.append(f"--{name}={value if isinstance(value, str) else inline_yaml(value)}")
    return arguments


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
        write_json(folder / "run.json", describe_machine(command) | {"threads": experiment.choose_threads(spec)})
        text = dump_yaml(plain_config(config))
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
        self._written_config()
        self.spec = DataSpec.from_json(read_json(self.folder / "data_spec.json", "data specification"))

    def _written_config(self) -> dict[str, Any]:
        """What config.yaml says, as plain values."""
        file, remedy = self.folder / "config.yaml", "Restore it, or train again."
        try:
            content = yaml.safe_load(regular(file, "configuration").read_bytes())
        except (OSError, yaml.YAMLError, RecursionError) as error:
            raise InputError(f"configuration {file} cannot be read: {' '.join(str(error).split())}. {remedy}") from None
        check(content, Opaque(), f"configuration {file}", remedy)
        return content

    def machine(self) -> dict[str, Any]:
        """Versions, machine and command with which the run was begun."""
        content = read_json(self.folder / "run.json", "run description")
        check(content, MACHINE, f"run description {self.folder / 'run.json'}")
        return content

    def config(self, arguments: Sequence[str] = ()) -> Namespace:
        """The run's configuration, changed by more command-line arguments."""
        return train_parser().parse_args([f"--config={self.folder / 'config.yaml'}", *arguments])

    def _refuse_another_config(self, state: dict[str, Any], asked: dict[str, Any]) -> None:
        """Options that did not exist when the run was started are taken to have had their defaults."""
        written = _flatten(self._written_config())
        resolved = _flatten(plain_config(self.config()))
        since = {key: value for key, value in resolved.items() if key not in written}
        _refuse_differences({**since, **_flatten(state["config"])}, asked, f"checkpoint at step {state['step']}")

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
                self._refuse_another_config(state, plain)
            else:
                _refuse_differences(plain_config(self.config()), plain, "run")
            experiment = build_experiment(config)
            stores, spec = experiment.open_data()
            self._refuse_other_data(spec, config.data)
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
        with limited_threads(experiment.threads or self._threads()), WorkerPool(experiment.workers) as pool:
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

    def _threads(self) -> int | None:
        """Threads that the run began with; None, torch's choice, where that was not noted."""
        return self.machine().get("threads")

    def checkpoints(self, keep: int = 1) -> CheckpointFolder:
        """The run's checkpoints."""
        return CheckpointFolder(self.folder / "checkpoints", keep)

    def suite(self) -> Suite:
        """The suite of the run's data, with the run's tasks."""
        return suite_of(self.spec)

    def policy(self, checkpoint: str = "last", act_with: str | None = None) -> tuple[TaskPolicy, dict[str, Any]]:
        """The trained policy of a checkpoint (`last`, `best` on training goals, or a step).

        Args:
            checkpoint: Which one.
            act_with: Which policy of an agent that has several; by default what its configuration says.

        Returns:
            The policy, and what identifies its weights: `checkpoint`, `step` and `sha256`.
        """
        config = self.config()
        experiment = build_experiment(config)
        state, digest = self.checkpoints().read(checkpoint)
        self._refuse_another_config(state, plain_config(config))
        agent = experiment.build_agent(self.spec)
        restore(agent, state["agent"])
        if act_with is not None:
            agent.choose(act_with)
        policy = TaskPolicy(agent, self._sharing(experiment, agent, state))
        return policy, {"checkpoint": checkpoint, "step": int(state["step"]), "sha256": digest}

    def _sharing(self, experiment: Experiment, agent: Agent, state: dict[str, Any]) -> dict[str, Sharing]:
        found = {}
        for phase in agent.phases:
            member = copy.deepcopy(experiment.sharing)
            member.task_names = self.spec.task_names
            member.init(phase.space, len(self.spec.task_names), torch_stream(experiment.seed, f"sharing {phase.name}"))
            with fitting(f"sharing of {phase.name}", type(member).__name__):
                member.load_state_dict(state["sharing"][phase.name])
            found[phase.name] = member
        return found

    def sharing(self, checkpoint: str = "last") -> dict[str, Sharing]:
        """What the tasks share in each phase, as a checkpoint has it."""
        experiment = build_experiment(self.config())
        return self._sharing(experiment, experiment.build_agent(self.spec), self.checkpoints().read(checkpoint)[0])

    def group(self, grouper: TaskGrouper, groups: int, checkpoint: str = "last") -> Grouping:
        """Groups the run's tasks by what the gradients of its policy say on its data.

        Args:
            grouper: How.
            groups: How many.
            checkpoint: `last`, `best` on training goals, or a step.
        """
        experiment = build_experiment(self.config())
        stores, spec = experiment.open_data()
        self._refuse_other_data(spec, experiment.data)
        agent, state = experiment.build_agent(self.spec), self.checkpoints().read(checkpoint)[0]
        restore(agent, state["agent"])
        names = [phase.name for phase in agent.phases]
        functions = PhaseFunctions(agent.eval(), names.index(agent.acting_phases[-1]))
        sharing = self._sharing(experiment, agent, state)
        functions.companions = [(it.space, sharing[it.name]) for it in agent.phases if it is not functions.phase]
        with isolated(experiment.seed, "groups"):
            probe = experiment.build_probe(stores, agent)
            return grouper.fit(functions, sharing[functions.phase.name], probe, groups, experiment.seed)

    def _refuse_other_data(self, spec: DataSpec, paths: Sequence[str]) -> None:
        if [entry["sha256"] for entry in spec.data] != [entry["sha256"] for entry in self.spec.data]:
            raise InputError(
                f"the data in {', '.join(paths)} is not what the run {self.folder} began with (the manifests' hashes "
                "differ). Restore it, say where it is with --data, or start a new run."
            )

    def evaluate(
        self,
        protocol: Protocol | ProtocolName = "heldout",
        checkpoint: str = "last",
        goal_visible: bool | None = None,
        out: str | Path | None = None,
        workers: int = 2,
        quiet: bool = False,
        act_with: str | None = None,
    ) -> EvalReport:
        """Plays the policy and keeps the report.

        Args:
            protocol: How to play; a name stands for that protocol's defaults.
            checkpoint: `last`, `best` on training goals, or a step.
            goal_visible: Show the goal's position or hide it; as in the data by default.
            out: Folder of the report; `evaluations` in the run's own by default.
            workers: Processes that play.
            quiet: Show no progress.
            act_with: Which policy of an agent that has several; by default what its configuration says.
        """
        if isinstance(protocol, str):
            protocol = Protocol(protocol)
        act_with = self._unusual(act_with)
        policy, source = self.policy(checkpoint, act_with)
        suite = self.suite()
        if goal_visible is not None:
            suite = suite.changed(goal_visible=goal_visible)
        words = [checkpoint, f"step {source['step']}", *([act_with] if act_with else [])]
        name = f"{self.folder.name} ({', '.join(words)})"
        source |= {"act_with": act_with} if act_with else {}
        target = self.report_path(protocol, checkpoint, goal_visible, out, act_with)
        with WorkerPool(workers) as pool:
            return evaluate(policy, suite, protocol, pool, name, out=target, source=source, quiet=quiet)

    def _unusual(self, act_with: str | None) -> str | None:
        """None for the policy that the configuration names anyway."""
        if act_with is None:
            return None
        usual = getattr(self.config().agent, "init_args", {}).get("act_with")
        return None if act_with == usual else act_with

    def action_errors(self, data: str | Path, checkpoint: str = "last") -> dict[str, Any]:
        """Compares the policy's actions with recorded ones, and keeps the result in `evaluations`.

        Args:
            data: A data set of the run's suite with all its tasks; one recorded on held-out goals, best.
            checkpoint: `last`, `best` on training goals, or a step.

        Returns:
            Per task the mean squared difference (`tasks`), their mean (`mean_error`), `source` and `data`: what
            identifies the weights and the data. A result of the same weights and data is read, not computed again.

        Raises:
            InputError: The data do not fit the run.
        """
        store = EpisodeStore(data)
        check_fits(self.spec, store)
        digest = sha256(store.path / "manifest.json")
        path = self.folder / "evaluations" / f"actions-{checkpoint}-{digest[:8]}.json"
        policy, source = self.policy(checkpoint)
        if path.exists():
            kept = read_json(path, "action errors")
            check(kept, ACTION_ERRORS, f"action errors {path}", "Delete it; they are computed again.")
            if kept["source"] == source:
                return kept
        tasks = action_errors(policy, store, self.spec.task_names)
        found = {
            "policy": f"{self.folder.name} ({checkpoint}, step {source['step']})",
            "source": source,
            "data": {"path": str(data), "sha256": digest},
            "mean_error": sum(tasks.values()) / len(tasks),
            "tasks": tasks,
        }
        write_json(path, found)
        return found

    def report_path(
        self,
        protocol: Protocol,
        checkpoint: str = "last",
        goal_visible: bool | None = None,
        out: str | Path | None = None,
        act_with: str | None = None,
    ) -> Path:
        """Where `evaluate` keeps the report: the name holds the settings, so that a quick look overwrites nothing.

        In a folder that is given, it also holds the run.
        """
        words = [protocol.name, checkpoint]
        acting = self._unusual(act_with)
        words += [acting] if acting else []
        words += [] if goal_visible is None else ["goal-visible" if goal_visible else "goal-hidden"]
        words += ["task-hidden"] if protocol.hides_tasks and not protocol.unseen_tasks else []
        shown = demonstrations_hash(protocol)
        words += [f"shown-{shown[:8]}"] if shown else []
        words += [protocol.context] if protocol.context != "exact" else []
        words += ["stopped"] if protocol.stop_at_success else []
        words += [f"seed{protocol.seed}"] if protocol.seed else []
        name = f"{'-'.join([*words, str(protocol.goals)])}.json"
        return self.folder / "evaluations" / name if out is None else Path(out) / f"{self._label()}-{name}"

    def _label(self) -> str:
        """Tells the run from others in a folder of reports, wherever it lies: its name and a hash of how it began."""
        began = [(self.folder / name).read_bytes() for name in ("config.yaml", "data_spec.json")]
        return f"{self.folder.name}-{hashlib.sha256(b''.join(began)).hexdigest()[:8]}"

    def reports(self, protocol: ProtocolName = "heldout", checkpoint: str = "last") -> list[EvalReport]:
        """The kept evaluations of a checkpoint as it is now, those with most goals first.

        Files that cannot be read as one are left out, with a `DamageWarning`.

        Raises:
            InputError: There is none, or all are of an earlier state of the checkpoint.
        """
        again = f"Run `mtorl evaluate {self.folder} --protocol {protocol} --checkpoint {checkpoint}`"
        paths = sorted((self.folder / "evaluations").glob(f"{protocol}-*.json"))
        loaded = [it for path in paths if (it := _readable(path)) is not None]
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


def _readable(path: Path) -> EvalReport | None:
    """The evaluation of a run in that file; None, with a warning, if there is none."""
    try:
        report = EvalReport.load(path)
        check(report.source, SOURCE, f"evaluation report {path}: its source", "Evaluate again.")
    except InputError as error:
        warnings.warn(f"{error} It is left out.", DamageWarning, stacklevel=3)
        return None
    return report


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
