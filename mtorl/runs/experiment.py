"""What a run is made of, as objects."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from mtorl import InputError, checks
from mtorl.agents import Agent
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.opening import open_stores
from mtorl.datasets.sampler import SamplingSettings, TaskSampler
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.datasets.turns import TaskOrder, largest_batch
from mtorl.envs.base import Suite
from mtorl.envs.results import EvalReport
from mtorl.envs.workers import WORKERS
from mtorl.runs.data import describe_data, suite_of
from mtorl.runs.memory import BatchSizes, check_memory
from mtorl.runs.provenance import find_device, limited_threads
from mtorl.trainers.balancers import Balancer, GradientAggregation, LossWeighting, MatrixAggregation
from mtorl.trainers.checkpoint import CheckpointFolder
from mtorl.trainers.computation import Backend, Computation, Execution, Precision
from mtorl.trainers.logs import NoLog, RunLog
from mtorl.trainers.offline import OfflineTrainer
from mtorl.trainers.optimizer import OptimizerSettings
from mtorl.trainers.phase_trainer import PhaseTrainer, phase_trainers
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.processes import leads, processes
from mtorl.trainers.schedule import Schedule
from mtorl.trainers.seeding import isolated, numpy_stream
from mtorl.trainers.sharing import Sharing
from mtorl.trainers.trackers import Tracker

SMALL_AGENT = 50_000
"""Parameters below which a second thread gains less than a quarter (benchmarks/contention.py)."""

THREADS = f"[1, {max(os.cpu_count() or 1, 256)}]"
"""Numbers of threads that a process can be expected to start."""


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
        sampling: Which recorded steps windows begin at.
        shares: Of each folder of `data` in every task's windows, relative to each other (0.7 0.3); by default all
            recorded steps are as likely. A task that only one of them has takes all windows from there.
        union: Let the data be of several suites: one policy for tasks whose dimensions, horizons and measures differ,
            each of which is played as in its own suite (see the suite Union).
        tasks: Train on these tasks of the data only.
        statistics: What observations are normalised with: the statistics of these tasks (tasks), or of all tasks of the
            data (data), as a policy for all of them would have.
        windows: Windows per task in a batch.
        grouping: Which tasks belong together: a file of `mtorl group`, which must know all tasks. It is for per_group,
            for orders of groups, GroupMasks, M3DT, and a last layer for each group (output_heads: per_group). The run
            keeps a copy.
        per_group: Train a model for each group of `grouping` by itself, one after the other, instead of one for all
            tasks. Their folders are in that of the run, which is played and reported as one policy.
        tasks_per_batch: Tasks in a batch, at most; by default all, or as many as `order` says.
        order: Which tasks come into a batch of fewer: random ones, all in turn (round_robin), those of one group after
            the other (by_group; all of the group by default), or as many of each group as can be (over_groups; one of
            each by default).
        evaluate_goals: Training goals per task that evaluations during training play, stopping at success.
        execution: How the gradients of single tasks are computed, for balancers that need them: loop (one task after
            the other), vmap (all at once, for GPUs), joint (to check the others), auto (loop on the CPU, else vmap).
        compile: Compile the losses and gradients of a step with a backend of torch.compile, which takes from seconds to
            minutes as training begins: inductor (fused kernels, on a GPU captured in CUDA graphs), aot_eager (the same
            kernels as ever, to check what can be compiled). Last bits change.
        precision: Of the layers between observations and last layers: single, or bf16 (bfloat16 products; parameters,
            losses, gradients of tasks and their inner products stay as precise as they are).
        keep: Checkpoints to keep, besides the best on training goals.
        seed: Derives all random streams.
        device: Where to train: cpu, cuda, cuda:1.
        threads: CPU threads of training; by default one for agents of fewer than 50,000 parameters, torch's choice for
            larger ones. Another number changes last bits: `run.json` keeps it, and a resumed run takes the same.
        dtype: Precision of training.
        workers: Processes that play episodes in evaluations.
        verify: Check the hashes and values of the data before training.
        quiet: Show no progress.
        tracker: A service that gets the run's numbers, tables and films as well: Wandb, Trackio, or a class of your own
            that is derived from Tracker. It changes nothing of the run, which may be resumed with another one or none.
    """

    data: list[str]
    out: str
    agent: Callable[[DataSpec], Agent]
    balancer: Balancer
    sharing: Sharing
    optimizer: OptimizerSettings
    schedule: Schedule
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    shares: list[float] | None = None
    union: bool = False
    tasks: list[str] | None = None
    statistics: Literal["tasks", "data"] = "tasks"
    windows: int = 64
    grouping: str | None = None
    per_group: bool = False
    tasks_per_batch: int | None = None
    order: TaskOrder = "random"
    evaluate_goals: int = 10
    execution: Execution = "auto"
    compile: Backend | None = None
    precision: Precision = "single"
    keep: int = 2
    seed: int = 0
    device: str = "cpu"
    threads: int | None = None
    dtype: Literal["float32", "float64"] = "float32"
    workers: int = 2
    verify: bool = True
    quiet: bool = False
    tracker: Tracker | None = None

    def open_data(self) -> tuple[list[EpisodeStore], DataSpec]:
        """The data sets, verified if asked for, and what the agent must know of them: the tasks' groups, too."""
        stores = open_stores(self.data, self.union)
        for store in stores if self.verify else ():
            store.verify()
        spec = describe_data(stores, self.tasks, pooled=self.statistics == "data")
        if self.grouping is None:
            return stores, spec
        return stores, replace(spec, groups=Grouping.load(self.grouping).groups_of(spec.task_names))

    def build_agent(self, spec: DataSpec) -> Agent:
        """The agent with its initial weights, which are a function of the seed."""
        with isolated(self.seed, "init"):
            return self.agent(spec)

    def choose_threads(self, spec: DataSpec) -> int:
        """CPU threads of training; small agents wait for threads longer than these help."""
        if self.threads is not None:
            return self.threads
        size = sum(parameter.numel() for parameter in self.build_agent(spec).parameters())
        return 1 if size < SMALL_AGENT else torch.get_num_threads()

    def build_probe(self, stores: Sequence[EpisodeStore], agent: Agent, name: str = "probe") -> TaskSampler:
        """Draws windows of all tasks from a stream of its own, which has that name."""
        stream = numpy_stream(self.seed, name)
        return TaskSampler(
            stores,
            agent.spec.task_names,
            self.windows,
            agent.window,
            stream,
            next_observations=agent.next_observations,
            prompts=agent.prompts,
            sampling=self.sampling,
            shares=self.shares,
        )

    def build_sampler(self, stores: Sequence[EpisodeStore], agent: Agent) -> TaskSampler:
        """Draws the windows that an agent trains on."""
        return TaskSampler(
            stores,
            agent.spec.task_names,
            self.windows,
            agent.window,
            numpy_stream(self.seed, "data"),
            self.tasks_per_batch,
            self.order,
            agent.next_observations,
            agent.prompts,
            self.sampling,
            agent.spec.groups,
            self.shares,
        )

    def check(self, stores: Sequence[EpisodeStore], spec: DataSpec) -> None:
        """Raises InputError for whatever would fail later; called before anything is written."""
        checks.within("[0, 18446744073709551615]", seed=self.seed)
        checks.within(WORKERS, workers=self.workers)
        checks.at_least(1, windows=self.windows, threads=self.threads)
        checks.within(THREADS, threads=self.threads)
        spoilt = [str(it.path) for it in stores if it.manifest["source"].get("split") == "heldout"]
        if spoilt:
            raise InputError(
                f"the data in {', '.join(spoilt)} were recorded on held-out goals, which evaluations keep for "
                "themselves. Train on data collected with --split train."
            )
        self.computation.check(find_device(self.device), getattr(torch, self.dtype))
        if self.tracker is not None:
            self.tracker.check()
        if self.per_group and processes():
            raise InputError("per_group trains one model after the other; expected one process. Leave torchrun out.")
        suite = suite_of(spec)
        found, expected = (spec.observation_dim, spec.action_dim), (suite.observation_dim, suite.action_dim)
        if found != expected:
            raise InputError(
                f"the data in {', '.join(self.data)} have observation and action dimensions {found}, their suite "
                f"{type(suite).__name__} has {expected}: the policy could not be played. Collect the data again."
            )
        self._check_playing(suite)
        self._check_memory(spec)
        checkpoints = CheckpointFolder(Path(self.out), self.keep)
        with limited_threads(self.threads):  # a step on few windows, thrown away: what does not fit together fails here
            few = replace(
                self,
                windows=min(self.windows, 2),
                compile=self.compile and "aot_eager",  # finds the same faults in less time
                schedule=replace(self.schedule, log_every=0, monitor_every=0, steps=1 << 60),
            )
            trainer = few.build_trainer(stores, spec, NoLog(), checkpoints, _never, {})
            idle = [phase.name for phase in trainer.agent.phases if not phase.span(self.schedule.steps)]
            if idle:
                raise InputError(
                    f"with {self.schedule.steps} steps the phases {idle} would have none; raise --schedule.steps."
                )
            trainer.rehearse()

    def _check_playing(self, suite: Suite) -> None:
        """Raises InputError if evaluations during training are asked for that the suite cannot play."""
        if not suite.playable and not self.schedule.evaluate_every:
            return
        if not suite.playable:
            raise InputError(
                f"the data in {', '.join(self.data)} have no environment to evaluate in. Train with "
                "--schedule.evaluate_every 0, or import them again with the --suite that they belong to."
            )
        goals = suite.goals("train")
        if not 1 <= self.evaluate_goals <= len(goals):
            raise InputError(
                f"evaluate_goals is {self.evaluate_goals}; expected 1 to {len(goals)}, the training goals."
            )

    def _check_memory(self, spec: DataSpec) -> None:
        device, most = find_device(self.device), largest_batch(len(spec.task_names), self.order, spec.groups)
        tasks = min(self.tasks_per_batch or most, len(spec.task_names))
        summed = self.sharing.uniform and isinstance(self.balancer, LossWeighting)
        looped = self.execution == "loop" or (self.execution == "auto" and device.type == "cpu")
        single = isinstance(self.balancer, GradientAggregation | MatrixAggregation) or self.schedule.monitor_every > 0
        check_memory(
            lambda: self.build_agent(spec),
            self.sharing,
            BatchSizes(
                self.windows, tasks, together=1 if looped and not summed else tasks, rows=tasks if single else 0
            ),
            device=device,
            dtype=getattr(torch, self.dtype),
        )

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
        agent.remember(stores)
        agent.to(find_device(self.device), getattr(torch, self.dtype))
        return OfflineTrainer(
            agent,
            self.build_phases(agent),
            self.build_sampler(stores, agent),
            self.build_probe(stores, agent),
            self.schedule,
            self.seed,
            log,
            checkpoints,
            evaluate,
            config,
            self.quiet or not leads(),
        )

    @property
    def computation(self) -> Computation:
        """How losses and gradients are computed."""
        return Computation(self.execution, self.compile, self.precision)

    def build_phases(self, agent: Agent) -> list[PhaseTrainer]:
        """What moves an agent's parameters, phase by phase."""
        return phase_trainers(
            agent, self.balancer, self.sharing, self.optimizer, self.schedule.steps, self.seed, self.computation
        )


def _never(policy: TaskPolicy) -> EvalReport:
    raise AssertionError("nothing is evaluated here")
