"""The training loop: draw, move, evaluate, save. It knows neither balancers nor masks by name."""

import copy
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from mtorl import InputError, checks
from mtorl.agents.base import Agent, Phase
from mtorl.datasets.sampler import TaskBatch, TaskSampler
from mtorl.envs.results import EvalReport
from mtorl.progress import Progress
from mtorl.trainers.balancers.base import Balancer
from mtorl.trainers.checkpoint import CheckpointFolder, fitting, restore
from mtorl.trainers.executions import Execution, PhaseFunctions
from mtorl.trainers.gradients import DenseGradients
from mtorl.trainers.logs import RunLog
from mtorl.trainers.monitor import conflicts, routing
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.seeding import isolated, numpy_stream, torch_stream
from mtorl.trainers.sharing.base import Sharing
from mtorl.trainers.update import MultiTaskUpdate

CONCLUDING_WINDOWS = 16
"""Windows of each task in a batch that `Sharing.conclude` draws."""
TIMING_ENTRIES = ("time", "steps_per_second")
"""Entries of the log that differ between a resumed and an uninterrupted run."""


@dataclass(frozen=True)
class Schedule:
    """When things happen, in training steps.

    Attributes:
        steps: Training steps in all.
        log_every: Steps between two entries of the log; 0: only one at the end.
        evaluate_every: Steps between two evaluations on training goals; 0: none.
        save_every: Steps between two checkpoints; 0: only one at the end.
        monitor_every: Steps between two records of how the gradients of the tasks conflict; 0: none. A record costs
            about one more training step.
    """

    steps: int = 5000
    log_every: int = 100
    evaluate_every: int = 1000
    save_every: int = 1000
    monitor_every: int = 100

    def __post_init__(self) -> None:
        checks.at_least(1, steps=self.steps)
        checks.at_least(0, log_every=self.log_every, evaluate_every=self.evaluate_every)
        checks.at_least(0, save_every=self.save_every, monitor_every=self.monitor_every)

    def due(self, step: int, every: int) -> bool:
        """Whether something with that interval happens after `step` finished steps."""
        return step > 0 and (step == self.steps or (every > 0 and step % every == 0))


class OfflineTrainer:
    """Trains an agent on recorded windows.

    Args:
        agent: The agent, on its device.
        sampler: Draws the batches.
        probe: Draws windows of all tasks for the sharing's updates.
        balancer: Copied for every phase of the agent.
        sharing: Copied for every phase of the agent.
        optimizer: Settings for every phase.
        schedule: When things happen.
        seed: Derives the streams of balancers and dropout.
        log: Where numbers go.
        checkpoints: Where states go.
        evaluate: Plays a policy on training goals.
        config: The run's resolved configuration, kept in every checkpoint.
        execution: How per-task gradients are computed.
        quiet: Show no progress.
    """

    def __init__(
        self,
        agent: Agent,
        sampler: TaskSampler,
        probe: TaskSampler,
        balancer: Balancer,
        sharing: Sharing,
        optimizer: OptimizerSettings,
        schedule: Schedule,
        seed: int,
        log: RunLog,
        checkpoints: CheckpointFolder,
        evaluate: Callable[[TaskPolicy], EvalReport],
        config: dict[str, Any],
        execution: Execution = "auto",
        quiet: bool = False,
    ) -> None:
        self.agent, self.schedule, self.seed = agent, schedule, seed
        self.sampler, self.probe = sampler, probe
        self.log, self.checkpoints, self.config, self.quiet = log, checkpoints, config, quiet
        self._evaluate = evaluate
        self._device = agent.observation_mean.device
        self._dtype = agent.observation_mean.dtype
        tasks = len(agent.spec.task_names)
        self.functions: dict[str, PhaseFunctions] = {}
        self.balancers: dict[str, Balancer] = {}
        self.sharing: dict[str, Sharing] = {}
        self.optimizers: dict[str, PhaseOptimizer] = {}
        for position, phase in enumerate(agent.phases):
            mine, ours = copy.deepcopy(balancer), copy.deepcopy(sharing)
            steps = len(phase.span(schedule.steps))
            mine.plan(steps)
            mine.init(tasks, phase.space, torch_stream(seed, f"balancer {phase.name}"))
            ours.task_names = agent.spec.task_names
            ours.init(phase.space, tasks, torch_stream(seed, f"sharing {phase.name}"))
            ours.to(self._device)  # balancers think in small numbers, on the CPU
            self.functions[phase.name] = PhaseFunctions(agent, position, execution)
            extra = list(mine.parameters())
            rows = [*agent.task_rows(), *extra]  # what a balancer learns belongs to tasks too
            self.balancers[phase.name], self.sharing[phase.name] = mine, ours
            self.optimizers[phase.name] = PhaseOptimizer(
                optimizer, phase.module, extra, rows, steps, mine.parameter_rate()
            )
        for name, functions in self.functions.items():
            others = [phase for phase in agent.phases if phase.name != name]
            functions.companions = [(phase.space, self.sharing[phase.name]) for phase in others]
        self._step = self._evaluated = self._saved = 0
        self._best = -1.0
        self._concluded = False
        self._loss = self._success = ""
        self._stop = _StopRequest()
        self._clear_sums()

    def run(self) -> None:
        """Trains to the last step.

        Raises:
            KeyboardInterrupt: Ctrl-C; the state was saved and the run can be resumed.
            InputError: A loss became infinite or NaN.
        """
        steps = self.schedule.steps
        with (
            self._stop as stop,
            Progress("training", steps, "steps", start=self._step, quiet=self.quiet) as progress,
        ):
            self.agent.train()
            self._restart_clock()
            while True:
                self._settle()
                if self._step == steps:
                    return
                if stop.requested:
                    self._save()
                    raise KeyboardInterrupt
                self.advance()
                progress.advance(1, self._loss + self._success)

    def rehearse(self) -> None:
        """One training step for every part of the agent, to be thrown away: what does not fit together fails here."""
        for start in sorted({phase.span(self.schedule.steps).start for phase in self.agent.phases}):
            self._step = start
            self.advance()

    def advance(self) -> None:
        """One training step: the only place where parameters move."""
        batch = self.sampler.draw().to(self._device, self._dtype)
        steps, monitored = self.schedule.steps, self._monitored()
        if monitored:
            self._monitor_routing(batch)
        for phase in self.agent.phases:
            span = phase.span(steps)
            if self._step not in span:
                continue
            index = self._step - span.start
            if self.sampler.round(self._step) % phase.every == 0:
                self._move(phase, batch, index, len(span), monitored)
            if self.sharing[phase.name].due(index):
                self._update_sharing(phase.name, index / len(span))
        self._step += 1
        if self.schedule.due(self._step, self.schedule.log_every):
            self._write_log()

    def _move(self, phase: Phase, batch: TaskBatch, index: int, steps: int, monitored: bool) -> None:
        """One step of one phase, of that many."""
        functions, optimizer = self.functions[phase.name], self.optimizers[phase.name]
        update = MultiTaskUpdate(functions, optimizer, batch, self.sharing[phase.name], index, steps, self.seed)
        if monitored:
            self._monitor(phase.name, update)
        before = optimizer.moves
        numbers = _numbers(self.balancers[phase.name], "step", self.balancers[phase.name].step(update))
        numbers["moves"] = float(optimizer.moves - before)
        phase.after_step()
        self._add(phase.name, update, numbers)

    def _conclude(self) -> None:
        """Lets what the tasks share learn what only acting needs, between two checkpoints."""
        if any(sharing.concluding for sharing in self.sharing.values()):
            self._save()
        for phase, sharing in self.sharing.items():
            if sharing.concluding:
                stream = numpy_stream(self.seed, f"conclusion {phase}")
                with isolated(self.seed, f"conclusion {phase}"):
                    numbers = sharing.conclude(self.probe.other(CONCLUDING_WINDOWS, sharing.concluding, stream))
                entry = {"kind": "conclusion", "step": self._step, "phase": phase}
                self.log.write(entry | _numbers(sharing, "conclude", numbers))
                self._saved = -1  # there is something new to save
        self._concluded = True

    def _monitored(self) -> bool:
        return self.schedule.monitor_every > 0 and self._step % self.schedule.monitor_every == 0

    def _monitor_routing(self, batch: TaskBatch) -> None:
        with isolated(self.seed, "routing", self._step, device=self._device):
            layers = self.agent.routing(batch)
        if layers:
            names = [self.agent.spec.task_names[task] for task in batch.task_ids.tolist()]
            self.log.write({"kind": "routing", "step": self._step, "tasks": names} | routing(layers, names))

    def _monitor(self, phase: str, update: MultiTaskUpdate) -> None:
        names = [self.agent.spec.task_names[task] for task in update.task_ids.tolist()]
        entry = {"kind": "conflicts", "step": self._step, "phase": phase, "tasks": names}
        self.log.write(entry | conflicts(update.gradients(), names))

    def _update_sharing(self, phase: str, progress: float) -> None:
        """Lets a sharing change, with the gradients of all tasks on windows of a stream of their own.

        Args:
            phase: Its phase.
            progress: Share of the phase that is done.
        """
        functions, sharing = self.functions[phase], self.sharing[phase]
        batches = [self.probe.draw().to(self._device, self._dtype) for _ in range(sharing.probes)]
        with isolated(self.seed, "probe", self._step, device=self._device):
            gradients = functions.dense_gradients(batches, sharing)
        self._check_probe(gradients)
        parameters = functions.space.select(self.agent)
        numbers = sharing.update(parameters, gradients, progress)
        entry = {"kind": "sharing", "step": self._step + 1, "phase": phase}
        self.log.write(entry | _numbers(sharing, "update", numbers))

    def _check_probe(self, gradients: DenseGradients) -> None:
        finite = gradients.losses.isfinite() & gradients.dense.norm(dim=1).isfinite()
        if not bool(finite.all()):
            bad = [self.agent.spec.task_names[task] for task in gradients.task_ids[~finite].tolist()]
            raise InputError(
                f"losses or gradients of {', '.join(bad)} are not finite at step {self._step}, on windows drawn to "
                "change what the tasks share. Check the data with `mtorl info --verify`, or lower --optimizer.lr."
            )

    def _settle(self) -> None:
        """Saves, concludes and evaluates where it is due; repeated calls at the same step do nothing.

        An evaluation is framed by two checkpoints: whatever happens within it, the training before it is safe, and
        whoever continues from the first one only evaluates again.
        """
        if self._step == self.schedule.steps and not self._concluded:
            self._conclude()
        evaluates = self.schedule.evaluate_every > 0 and self.schedule.due(self._step, self.schedule.evaluate_every)
        evaluates = evaluates and self._evaluated < self._step
        if evaluates or (self.schedule.due(self._step, self.schedule.save_every) and self._saved < self._step):
            self._save()
        if evaluates:
            self._write_evaluation()

    def _write_evaluation(self) -> None:
        self.agent.eval()
        with self._stop.immediate():
            report = self._evaluate(TaskPolicy(self.agent, self.sharing))
        self.agent.train()
        self._evaluated = self._step
        success = {row.task: row.rate for row in report.tasks()}
        self.log.write(
            {
                "kind": "evaluation on training goals",
                "step": self._step,
                "mean_success": report.mean_success,
                "success": success,
            }
        )
        self._success = f", success on training goals {report.mean_success:.0%}"
        best = report.mean_success > self._best
        self._best = max(self._best, report.mean_success)
        self._save(best)
        self._restart_clock()

    def _clear_sums(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def _add(self, phase: str, update: MultiTaskUpdate, numbers: dict[str, float]) -> None:
        named = {f"{phase}/{key}": value for key, value in numbers.items()}
        names = [self.agent.spec.task_names[task] for task in update.task_ids.tolist()]
        for kind, values in (("loss", update.first_losses), ("weight", update.weights)):
            if values is not None:
                found = zip(names, values.tolist(), strict=True)
                named |= {f"{phase}/{kind}/{name}": value for name, value in found if math.isfinite(value)}
        for key, value in named.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
            self._counts[key] = self._counts.get(key, 0) + 1

    def _write_log(self) -> None:
        """Means since the last entry."""
        now = time.perf_counter()
        means = {key: total / self._counts[key] for key, total in sorted(self._sums.items())}
        acting = tuple(f"{phase}/loss/" for phase in self.agent.acting_phases)
        losses = {key: value for key, value in means.items() if "/loss/" in key}
        per_task = [value for key, value in losses.items() if key.startswith(acting)] or list(losses.values())
        rate = (self._step - self._marked_step) / max(now - self._mark, 1e-9)
        loss = sum(per_task) / max(len(per_task), 1)
        self._loss = f"loss {loss:.4g}"
        self.log.write({"kind": "training", "step": self._step, "loss": loss} | means | {"steps_per_second": rate})
        self._restart_clock()
        self._clear_sums()

    def _restart_clock(self) -> None:
        self._mark, self._marked_step = time.perf_counter(), self._step

    def _save(self, best: bool = False) -> None:
        self.checkpoints.save(self._step, self.state_dict(), best)
        self._saved = self._step

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            "config": self.config,
            "agent": self.agent.state_dict(),
            "balancers": {name: balancer.state_dict() for name, balancer in self.balancers.items()},
            "sharing": {name: sharing.state_dict() for name, sharing in self.sharing.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "sampler": self.sampler.state_dict(),
            "probe": self.probe.state_dict(),
            "evaluated": self._evaluated,
            "best": self._best,
            "concluded": self._concluded,
            "sums": self._sums,
            "counts": self._counts,
            "log_bytes": self.log.flush(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a checkpoint."""
        restore(self.agent, state["agent"])
        for family in ("balancers", "sharing", "optimizers"):
            for name, member in getattr(self, family).items():
                with fitting(f"{family} of {name}", type(member).__name__):
                    member.load_state_dict(state[family][name])
        with fitting("draws", "the sampler"):
            self.sampler.load_state_dict(state["sampler"])
            self.probe.load_state_dict(state["probe"])
        self._step = self._saved = state["step"]
        self._evaluated, self._best = state["evaluated"], state["best"]
        self._concluded = state.get("concluded", False)
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        self.log.rewind(state["log_bytes"])


def _numbers(member: object, method: str, returned: Any) -> dict[str, float]:
    """What a method returned, if it can be logged; a balancer may be somebody's first."""
    if not isinstance(returned, dict):
        found = type(returned).__name__
    else:
        found = ", ".join(f"{key}: {value!r}" for key, value in returned.items() if not _is_number(value))
        if not found:
            return returned
    raise TypeError(
        f"{type(member).__name__}.{method} returned {found}; expected a dictionary of finite numbers for the log, such "
        "as update.descend_loss returns."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


class _StopRequest:
    """Turns the first Ctrl-C into a request that is honoured between two steps; the second one is immediate."""

    def __init__(self) -> None:
        self.requested = self._immediate = False
        self._previous: Any = None

    def __enter__(self) -> "_StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested or self._immediate:
            raise KeyboardInterrupt
        self.requested = True

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Inside the block already the first Ctrl-C interrupts: for long work that can simply be done again."""
        if self.requested:  # while the checkpoint before it was being saved
            raise KeyboardInterrupt
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
