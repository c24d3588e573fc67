"""A run: its policy, played, compared with recorded actions, and what its gradients say of tasks."""

from dataclasses import replace
from functools import cached_property
from pathlib import Path

from torch import nn

from mtorl import InputError
from mtorl.agents import Agent
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.opening import check_fits
from mtorl.datasets.store import EpisodeStore, sha256
from mtorl.envs.engines import open_pool
from mtorl.envs.evaluator import evaluate
from mtorl.envs.protocol import EvaluationSettings, Protocol, ProtocolName
from mtorl.envs.results import EvalReport, Source
from mtorl.runs.action_error import ActionErrors, action_errors
from mtorl.runs.folder import RunFolder
from mtorl.runs.kept import kept_reports
from mtorl.runs.members import folder_of, joined_digest
from mtorl.runs.player import Player
from mtorl.runs.tracking import tell
from mtorl.trainers.checkpoint import fitting, restore
from mtorl.trainers.groupers import TaskGrouper
from mtorl.trainers.phase_trainer import phase_functions, phase_sharing
from mtorl.trainers.policy import PolicyPerGroup, TaskPolicy
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import Sharing

RunPolicy = TaskPolicy | PolicyPerGroup


def load_policy(run: "str | Path | Run", checkpoint: str = "last", act_with: str | None = None) -> Player:
    """The trained policy of a run, to be played in environments of one's own.

    Args:
        run: Folder of the run, or `zoo:` and the name of an entry of the zoo.
        checkpoint: `last`, `best` on training goals, or a step.
        act_with: Which policy of an agent that has several; by default what its configuration says.
    """
    opened = Run(run)
    return Player(opened.policy(checkpoint, act_with)[0], opened.suite())


class Run(RunFolder):
    """A run that was trained: its policy, played, compared and grouped by.

    Args:
        folder: The folder; a run stands for its own.

    Raises:
        InputError: No run is there.
    """

    def __init__(self, folder: "str | Path | Run") -> None:
        super().__init__(folder.folder if isinstance(folder, Run) else folder)
        if isinstance(folder, Run):
            self.home = folder.home

    @cached_property
    def parts(self) -> "list[Run]":
        """The runs that it consists of: itself, or one for each group of tasks.

        Raises:
            InputError: Some of these are missing, or are those of other tasks.
        """
        if not self.per_group:
            return [self]
        folders = [self.folder / folder_of(group) for group in range(len(self.spec.grouped))]
        missing = [folder.name for folder in folders if not (folder / "config.yaml").exists()]
        if missing:
            raise InputError(
                f"{self.folder} is not trained yet: of the models of its groups {', '.join(missing)} were not begun. "
                f"Continue with `mtorl train --resume {self.folder}`."
            )
        parts = [Run(folder) for folder in folders]
        for part, names in zip(parts, self.spec.grouped, strict=True):
            if part.spec.task_names != names:
                raise InputError(
                    f"{part.folder} is a run of the tasks {list(part.spec.task_names)}; expected {list(names)}, the "
                    "tasks of that group. Put the right folder there, or train again."
                )
        return parts

    def policy(self, checkpoint: str = "last", act_with: str | None = None) -> tuple[RunPolicy, Source]:
        """The trained policy of a checkpoint (`last`, `best` on training goals, or a step).

        Args:
            checkpoint: Which one.
            act_with: Which policy of an agent that has several; by default what its configuration says.

        Returns:
            The policy, and what identifies it.
        """
        if self.per_group:
            each = [part.policy(checkpoint, act_with) for part in self.parts]
            digest = joined_digest([source.sha256 for _, source in each])
            steps = sum(source.step or 0 for _, source in each)
            policies = [it for it, _ in each if isinstance(it, TaskPolicy)]
            return PolicyPerGroup(self.spec.task_names, policies), Source(checkpoint, steps, digest, act_with)
        agent, sharing, source = self.trained(checkpoint)
        if act_with is not None:
            agent.choose(act_with)
        return TaskPolicy(agent, sharing), replace(source, act_with=act_with)

    def digest(self, checkpoint: str = "last") -> str | None:
        """Hash of a checkpoint, or of those of all of its models; None if there is none, or none any more."""
        folders = [part.checkpoints() for part in self.parts]
        files = [folder.file(checkpoint) if folder.steps() else None for folder in folders]
        return joined_digest([sha256(file) if file and file.exists() else None for file in files])

    def parameters(self) -> int:
        """Numbers that were trained, in all of its models: those of the agents, and those of ways of sharing."""
        modules: list[nn.Module] = []
        for part in self.parts:
            experiment = part.configuration.experiment()
            agent = experiment.build_agent(part.spec)
            modules += [agent, *phase_sharing(agent, experiment.sharing, experiment.seed).values()]
        return sum(value.numel() for it in modules for value in it.parameters() if value.requires_grad)

    def trained(self, checkpoint: str = "last") -> tuple[Agent, dict[str, Sharing], Source]:
        """The agent of a checkpoint, what its tasks share in each phase, and what identifies it."""
        experiment = self.configuration.experiment()
        state, digest = self.checkpoints().read(checkpoint)
        self.refuse_another_configuration(self.configuration, state)
        agent = experiment.build_agent(self.spec)
        if not state["agent"].keys() & set(agent.training_only()):
            agent.strip()  # the checkpoint was made for acting alone
        restore(agent, state["agent"])
        sharing = phase_sharing(agent, experiment.sharing, experiment.seed)
        for name, member in sharing.items():
            with fitting(f"sharing of {name}", type(member).__name__):
                member.load_state_dict(state["sharing"][name])
        return agent, sharing, Source(checkpoint, int(state["step"]), digest)

    def sharing(self, checkpoint: str = "last") -> dict[str, Sharing]:
        """What the tasks share in each phase, as a checkpoint has it."""
        return self.trained(checkpoint)[1]

    def group(self, grouper: TaskGrouper, groups: int, checkpoint: str = "last") -> Grouping:
        """Groups the run's tasks by what the gradients of its policy say on its data.

        Args:
            grouper: How.
            groups: How many.
            checkpoint: `last`, `best` on training goals, or a step.
        """
        experiment = self.with_own_groups(self.configuration.experiment())
        stores, spec = experiment.open_data()
        self.refuse_other_data(spec, experiment.data)
        agent, sharing, _ = self.trained(checkpoint)
        phase = next(phase for phase in agent.eval().phases if phase.name == agent.acting_phases[-1])
        functions = phase_functions(agent, phase, sharing)
        with isolated(experiment.seed, "groups"):
            probe = experiment.build_probe(stores, agent)
            return grouper.fit(functions, sharing[phase.name], probe, groups, experiment.seed)

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
        suite = self.suite(goal_visible)
        target = self.report_path(protocol, checkpoint, goal_visible, out, act_with)
        with open_pool(workers) as pool:
            report = evaluate(policy, suite, protocol, pool, self.named(source), target, source, quiet)
        tell(self, report)
        return report

    def named(self, source: Source, run: str | None = None) -> str:
        """What reports call the policy that `source` identifies; `run`: in a folder of that name."""
        words = [f"{source.checkpoint}", f"step {source.step}", *([source.act_with] if source.act_with else [])]
        return f"{run or self.folder.name} ({', '.join(words)})"

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
        path = self.home / "evaluations" / f"actions-{checkpoint}-{digest[:8]}.json"
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
        settings = EvaluationSettings.asked(protocol, checkpoint, self.unusual(act_with), goal_visible)
        name = f"{settings.key}.json"
        return self.home / "evaluations" / name if out is None else Path(out) / f"{self.label()}-{name}"

    def reports(self, protocol: ProtocolName = "heldout", checkpoint: str = "last") -> list[EvalReport]:
        """The kept evaluations of a checkpoint as it is now, those with most goals first.

        Files that cannot be read as one are left out, with a `DamageWarning`.

        Raises:
            InputError: There is none, or all are of an earlier state of the checkpoint.
        """
        folders = list(dict.fromkeys([self.folder, self.home]))
        return kept_reports(folders, self.digest(checkpoint), protocol, checkpoint)
