"""The training loop: draw, move, evaluate, save. It knows neither balancers nor masks by name."""

from collections.abc import Callable
from typing import Any

from mtorl.agents.base import Agent
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.sampler import TaskSampler
from mtorl.envs.results import EvalReport
from mtorl.interrupts import StopRequest
from mtorl.progress import Progress
from mtorl.schema import SINGLE, State
from mtorl.trainers.checkpoint import CheckpointFolder, fitting, restore
from mtorl.trainers.entries import ConclusionEntry, EvaluationEntry, SharingEntry
from mtorl.trainers.logs import RunLog
from mtorl.trainers.monitor import conflicts, relations, routing
from mtorl.trainers.phase_trainer import PARTS, PhaseTrainer
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.processes import leads, processes
from mtorl.trainers.records import Records
from mtorl.trainers.schedule import Schedule
from mtorl.trainers.seeding import isolated
from mtorl.trainers.update import MultiTaskUpdate

TIMING_ENTRIES = ("time", "steps_per_second")
"""Entries of the log that differ between a resumed and an uninterrupted run."""


class OfflineTrainer:
    """Trains an agent on recorded windows.

    Args:
        agent: The agent, on its device.
        phases: What moves its parameters, from `phase_trainers`.
        sampler: Draws the batches.
        probe: Draws windows of all tasks for the sharing's updates.
        schedule: When things happen.
        seed: Derives the noise of what is only looked at.
        log: Where numbers go.
        checkpoints: Where states go.
        evaluate: Plays a policy on training goals.
        config: The run's resolved configuration, kept in every checkpoint.
        quiet: Show no progress.
    """

    def __init__(
        self,
        agent: Agent,
        phases: list[PhaseTrainer],
        sampler: TaskSampler,
        probe: TaskSampler,
        schedule: Schedule,
        seed: int,
        log: RunLog,
        checkpoints: CheckpointFolder,
        evaluate: Callable[[TaskPolicy], EvalReport],
        config: dict[str, Any],
        quiet: bool = False,
    ) -> None:
        self.agent, self.phases, self.sampler, self.probe = agent, phases, sampler, probe
        self.schedule, self.seed, self.log, self.checkpoints = schedule, seed, log, checkpoints
        self.config, self.quiet, self._evaluate = config, quiet, evaluate
        self._records = Records(agent.spec.task_names, agent.acting_phases)
        self._step = self._evaluated = self._saved = 0
        self._best = -SINGLE
        self._concluded = False
        self._loss = self._success = ""
        self._stop = StopRequest()

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
            self._records.restart_clock(self._step)
            self._settle()  # what was due when the run was interrupted
            while self._step < steps:
                if self._stops(stop.requested):
                    self._save()
                    raise KeyboardInterrupt
                self.advance()
                self._settle()
                progress.advance(1, self._loss + self._success)

    def _stops(self, requested: bool) -> bool:
        """Whether training is interrupted now; of several processes the first one says so."""
        together = processes()
        return together.first_says(requested) if together else requested

    def rehearse(self) -> None:
        """One training step for every part of the agent, to be thrown away: what does not fit together fails here."""
        for start in sorted({phase.span.start for phase in self.phases}):
            self._step = start
            self.advance()

    def advance(self) -> None:
        """One training step."""
        step, like = self._step, self.agent.observation_mean
        batch = self.sampler.draw().to(like.device, like.dtype)
        monitored, turn = self.schedule.monitors(step), self.sampler.round(step)
        if monitored:
            self._write_relations(batch)
        for phase in self.phases:
            if phase.moves_at(step, turn):
                update = phase.update(batch, step)
                if monitored:
                    self._write_conflicts(phase.name, update)
                self._records.add(phase.name, update, phase.move(update))
            if phase.sharing_changes_at(step):
                self.log.write(SharingEntry(step + 1, phase.name, phase.change_sharing(self.probe, step)))
        self._step += 1
        if self.schedule.logs(self._step):
            entry = self._records.entry(self._step)
            self._loss = f"loss {entry.loss:.4g}"
            self.log.write(entry)

    def _write_relations(self, batch: TaskBatch) -> None:
        """How tasks mix modules, and what they take from each other's heads."""
        with isolated(self.seed, "routing", self._step, device=batch.valid.device):
            layers, found = self.agent.routing(batch), self.agent.relations(batch)
        everybody = list(self.agent.spec.task_names)
        names = [everybody[task] for task in batch.task_ids.tolist()]
        if layers:
            self.log.write(routing(self._step, layers, names))
        if found is not None:
            self.log.write(relations(self._step, found, names, everybody))

    def _write_conflicts(self, phase: str, update: MultiTaskUpdate) -> None:
        names = [self.agent.spec.task_names[task] for task in update.task_ids.tolist()]
        self.log.write(conflicts(self._step, phase, update.gradients(), names))

    def _settle(self) -> None:
        """Saves, concludes and evaluates where it is due; repeated calls at the same step do nothing.

        An evaluation is framed by two checkpoints: whatever happens within it, the training before it is safe, and
        whoever continues from the first one only evaluates again.
        """
        if self._step == self.schedule.steps and not self._concluded:
            self._conclude()
        evaluates = self.schedule.evaluates(self._step) and self._evaluated < self._step
        if evaluates or (self.schedule.saves(self._step) and self._saved < self._step):
            self._save()
        if evaluates:
            self._write_evaluation()

    def _conclude(self) -> None:
        """Lets what the tasks share learn what only acting needs, between two checkpoints."""
        concluding = [phase for phase in self.phases if phase.sharing.concluding]
        if concluding:
            self._save()
        for phase in concluding:
            self.log.write(ConclusionEntry(self._step, phase.name, phase.conclude(self.probe)))
            self._saved = -1  # there is something new to save
        self._concluded = True

    def _write_evaluation(self) -> None:
        self.agent.eval()
        with self._stop.immediate():
            report = self._evaluate(TaskPolicy(self.agent, {phase.name: phase.sharing for phase in self.phases}))
        self.agent.train()
        self._evaluated = self._step
        self.log.write(EvaluationEntry.of(self._step, report))
        judged = report.means[0]
        self._success = f", {judged.scale.name} on training goals {judged.text()}"
        best = judged.value > self._best
        self._best = max(self._best, judged.value)
        self._save(best)
        self._records.restart_clock(self._step)

    def _save(self, best: bool = False) -> None:
        if leads():
            self.checkpoints.save(self._step, self.state_dict(), best)
        self._saved = self._step

    def state_dict(self) -> State:
        """Everything that the rest of the run depends on."""
        states = {phase.name: phase.state_dict() for phase in self.phases}
        parts = {plural: {name: state[plural] for name, state in states.items()} for plural in PARTS}
        return {
            "config": self.config,
            "agent": self.agent.state_dict(),
            **parts,
            "sampler": self.sampler.state_dict(),
            "probe": self.probe.state_dict(),
            "evaluated": self._evaluated,
            "best": self._best,
            "concluded": self._concluded,
            **self._records.state_dict(),
            "log_bytes": self.log.flush(),
        }

    def load_state_dict(self, state: State) -> None:
        """Continues from a checkpoint."""
        restore(self.agent, state["agent"])
        for phase in self.phases:
            phase.load_checkpoint(state)
        with fitting("draws", "the sampler"):
            self.sampler.load_state_dict(state["sampler"])
            self.probe.load_state_dict(state["probe"])
        self._step = self._saved = state["step"]
        self._evaluated, self._best = state["evaluated"], state["best"]
        self._concluded = state.get("concluded", False)
        self._records.load_state_dict(state)
        self.log.rewind(state["log_bytes"])
