"""A run's folder: everything needed to judge the run and to do it again.

| file | content |
|---|---|
| `config.yaml` | the resolved configuration |
| `data_spec.json` | what the agent knew of its data; evaluation needs no data set |
| `run.json` | versions, machine, command, threads |
| `log.jsonl`, `tensorboard/` | losses and success on training goals |
| `checkpoints/` | the last few, and the best on training goals |
| `evaluations/` | one report per protocol, and errors of actions |
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from jsonargparse import Namespace

from mtorl import InputError
from mtorl.agents import Agent
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.spec import DataSpec, check_fits
from mtorl.datasets.store import EpisodeStore, sha256
from mtorl.envs.base import Suite
from mtorl.envs.evaluator import evaluate
from mtorl.envs.protocol import EvaluationSettings, Protocol, ProtocolName, point_label
from mtorl.envs.results import EvalReport, Source
from mtorl.envs.workers import WorkerPool
from mtorl.files import (
    read_json,
)
from mtorl.runs.action_error import ActionErrors, action_errors
from mtorl.runs.configuration import Configuration, flatten, read_plain, renamed
from mtorl.runs.data import suite_of
from mtorl.runs.experiment import Experiment
from mtorl.runs.kept import kept_reports
from mtorl.runs.provenance import MACHINE
from mtorl.schema import Document, State, check
from mtorl.trainers.checkpoint import CheckpointFolder, fitting, restore
from mtorl.trainers.groupers import TaskGrouper
from mtorl.trainers.phase_trainer import phase_functions, phase_sharing
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import Sharing


def load_policy(run: "str | Path | Run", checkpoint: str = "last", act_with: str | None = None) -> TaskPolicy:
    """The trained policy of a run, to be played.

    Args:
        run: Folder of the run.
        checkpoint: `last`, `best` on training goals, or a step.
        act_with: Which policy of an agent that has several; by default what its configuration says.
    """
    return Run(run).policy(checkpoint, act_with)[0]


class Run:
    """A folder that holds a run.

    Args:
        folder: The folder; a run stands for its own.

    Raises:
        InputError: No run is there.
    """

    def __init__(self, folder: "str | Path | Run") -> None:
        self.folder: Path = folder.folder if isinstance(folder, Run) else Path(folder)
        if not self.folder.name:  # "." has none, and reports need one
            self.folder = self.folder.resolve()
        if not (self.folder / "config.yaml").exists():
            raise InputError(
                f"no run in {self.folder}: expected a file config.yaml there. Start one with `mtorl train`."
            )
        read_plain(self.folder / "config.yaml")
        self.spec = DataSpec.from_json(read_json(self.folder / "data_spec.json", "data specification"))

    def machine(self) -> Document:
        """Versions, machine and command with which the run was begun."""
        content = read_json(self.folder / "run.json", "run description")
        check(content, MACHINE, f"run description {self.folder / 'run.json'}")
        return content

    @cached_property
    def configuration(self) -> Configuration:
        """All of its options."""
        return Configuration.read(self.folder / "config.yaml")

    def config(self) -> Namespace:
        """Its options, as they are parsed, for scripts; see `configuration`."""
        return self.configuration.options

    def read_configuration(self, arguments: Sequence[str]) -> Configuration:
        """The same, changed by arguments of a command line."""
        return Configuration.read(self.folder / "config.yaml", arguments) if arguments else self.configuration

    def refuse_another_configuration(self, asked: Configuration, state: State | None) -> None:
        """Raises InputError where a run would go on, or be played, with other options than it began with.

        Options that did not exist when the run was begun are taken to have had their defaults.

        Args:
            asked: With which it is to go on.
            state: The checkpoint that it goes on from; None: there is none yet.
        """
        begun = self.configuration
        if state is None:
            what, differing = "run", asked.differences(begun.plain, "run")
        else:
            what = f"checkpoint at step {state['step']}"
            written = flatten(renamed(read_plain(self.folder / "config.yaml")))
            since = {key: value for key, value in flatten(begun.plain).items() if key not in written}
            differing = asked.differences({**since, **flatten(renamed(state["config"]))}, what)
        if differing:
            raise InputError(
                f"the configuration differs from that of the {what}: {'; '.join(differing)}. Resume with the same "
                "configuration, or start a new run."
            )

    def checkpoints(self, keep: int = 1) -> CheckpointFolder:
        """The run's checkpoints."""
        return CheckpointFolder(self.folder / "checkpoints", keep)

    def suite(self) -> Suite:
        """The suite of the run's data, with the run's tasks."""
        return suite_of(self.spec)

    def policy(self, checkpoint: str = "last", act_with: str | None = None) -> tuple[TaskPolicy, Source]:
        """The trained policy of a checkpoint (`last`, `best` on training goals, or a step).

        Args:
            checkpoint: Which one.
            act_with: Which policy of an agent that has several; by default what its configuration says.

        Returns:
            The policy, and what identifies it.
        """
        agent, sharing, source = self.trained(checkpoint, act_with)
        return TaskPolicy(agent, sharing), source

    def trained(
        self, checkpoint: str = "last", act_with: str | None = None
    ) -> tuple[Agent, dict[str, Sharing], Source]:
        """The agent of a checkpoint, what its tasks share in each phase, and what identifies both; see `policy`."""
        experiment = self.configuration.experiment()
        state, digest = self.checkpoints().read(checkpoint)
        self.refuse_another_configuration(self.configuration, state)
        agent, sharing = self._trained(experiment, state)
        if act_with is not None:
            agent.choose(act_with)
        return agent, sharing, Source(checkpoint, int(state["step"]), digest, act_with)

    def _trained(self, experiment: Experiment, state: State) -> tuple[Agent, dict[str, Sharing]]:
        """The agent of a checkpoint, and what its tasks share in each phase."""
        agent = experiment.build_agent(self.spec)
        restore(agent, state["agent"])
        sharing = phase_sharing(agent, experiment.sharing, experiment.seed)
        for name, member in sharing.items():
            with fitting(f"sharing of {name}", type(member).__name__):
                member.load_state_dict(state["sharing"][name])
        return agent, sharing

    def sharing(self, checkpoint: str = "last") -> dict[str, Sharing]:
        """What the tasks share in each phase, as a checkpoint has it."""
        return self._trained(self.configuration.experiment(), self.checkpoints().load(checkpoint))[1]

    def group(self, grouper: TaskGrouper, groups: int, checkpoint: str = "last") -> Grouping:
        """Groups the run's tasks by what the gradients of its policy say on its data.

        Args:
            grouper: How.
            groups: How many.
            checkpoint: `last`, `best` on training goals, or a step.
        """
        experiment = self.configuration.experiment()
        stores, spec = experiment.open_data()
        self.refuse_other_data(spec, experiment.data)
        agent, sharing = self._trained(experiment, self.checkpoints().load(checkpoint))
        phase = next(phase for phase in agent.eval().phases if phase.name == agent.acting_phases[-1])
        functions = phase_functions(agent, phase, sharing)
        with isolated(experiment.seed, "groups"):
            probe = experiment.build_probe(stores, agent)
            return grouper.fit(functions, sharing[phase.name], probe, groups, experiment.seed)

    def refuse_other_data(self, spec: DataSpec, paths: Sequence[str]) -> None:
        """Raises InputError unless the data are those that the run began with."""
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
        act_with = self.unusual(act_with)
        policy, source = self.policy(checkpoint, act_with)
        suite = self.played_suite(goal_visible)
        target = self.report_path(protocol, checkpoint, goal_visible, out, act_with)
        with WorkerPool(workers) as pool:
            return evaluate(policy, suite, protocol, pool, self.named(source), out=target, source=source, quiet=quiet)

    def played_suite(self, goal_visible: bool | None) -> Suite:
        """The run's suite, with the goal shown or hidden; as in the data by default."""
        suite = self.suite()
        return suite if goal_visible is None else suite.changed(goal_visible=goal_visible)

    def named(self, source: Source) -> str:
        """What reports call the policy that `source` identifies."""
        words = [f"{source.checkpoint}", f"step {source.step}", *([source.act_with] if source.act_with else [])]
        words += [f"at {point_label(source.point)}"] if source.point is not None else []
        return f"{self.folder.name} ({', '.join(words)})"

    def unusual(self, act_with: str | None) -> str | None:
        """None for the policy that the configuration names anyway."""
        if act_with is None:
            return None
        usual = getattr(self.configuration.options.agent, "init_args", {}).get("act_with")
        return None if act_with == usual else act_with

    def action_errors(self, data: str | Path, checkpoint: str = "last") -> ActionErrors:
        """Compares the policy's actions with recorded ones, and keeps the result in `evaluations`.

        Args:
            data: A data set of the run's suite with all its tasks; one recorded on held-out goals, best.
            checkpoint: `last`, `best` on training goals, or a step.

        Returns:
            The errors of every task. A result of the same weights and data is read, not computed again.

        Raises:
            InputError: The data do not fit the run.
        """
        store = EpisodeStore(data)
        check_fits(self.spec, store)
        digest = sha256(store.path / "manifest.json")
        path = self.folder / "evaluations" / f"actions-{checkpoint}-{digest[:8]}.json"
        policy, source = self.policy(checkpoint)
        if path.exists() and (kept := ActionErrors.load(path)).source == source:
            return kept
        tasks = action_errors(policy, store, self.spec.task_names)
        errors = ActionErrors(self.named(source), source, str(data), digest, tasks)
        errors.save(path)
        return errors

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
        return self.target(EvaluationSettings.asked(protocol, checkpoint, self.unusual(act_with), goal_visible), out)

    def target(self, settings: EvaluationSettings, out: str | Path | None) -> Path:
        """The same for an evaluation with these settings."""
        name = f"{settings.key}.json"
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
        return kept_reports(self.folder, self.checkpoints(), protocol, checkpoint)
