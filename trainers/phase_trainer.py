"""One phase of an agent in training: what its tasks share, how their losses are balanced, who moves the parameters."""

import copy
import math
from typing import Any

from torch import nn

from mtorl import InputError
from mtorl.agents.base import Agent, Phase
from mtorl.agents.heads import Head
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.sampler import TaskSampler
from mtorl.schema import State
from mtorl.trainers.balancers.base import Balancer, LossWeighting
from mtorl.trainers.checkpoint import fitting
from mtorl.trainers.computation import Computation, Execution
from mtorl.trainers.distributed import SharedFunctions
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import DenseGradients
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.processes import processes
from mtorl.trainers.seeding import isolated, numpy_stream, torch_stream
from mtorl.trainers.sharing.base import Sharing
from mtorl.trainers.update import MultiTaskUpdate, refuse_mixture

CONCLUDING_WINDOWS = 16
"""Windows of each task in a batch that `Sharing.conclude` draws."""
PARTS = {"balancers": "balancer", "sharing": "sharing", "optimizers": "optimizer"}
"""What checkpoints hold of every phase: the names there, and those of its trainer."""


class PhaseTrainer:
    """Moves the parameters of one phase. Made by `phase_trainers`, for training as for reading a run.

    Args:
        functions: Losses and gradients of the phase.
        sharing: Which parameters each task computes with.
        balancer: How the task losses become one move.
        optimizer: Moves the parameters.
        steps: Training steps of the agent in all.
        seed: Derives the noise of dropout and the streams of probes.
    """

    def __init__(
        self,
        functions: PhaseFunctions,
        sharing: Sharing,
        balancer: Balancer,
        optimizer: PhaseOptimizer,
        steps: int,
        seed: int,
    ) -> None:
        self.functions, self.sharing, self.balancer, self.optimizer = functions, sharing, balancer, optimizer
        self.span, self._seed = functions.phase.span(steps), seed
        moved = {id(it) for it in functions.phase.module.parameters()}
        heads = [it for it in functions.agent.modules() if isinstance(it, Head)]
        self._heads = [it for it in heads if any(id(parameter) in moved for parameter in it.parameters())]

    @property
    def phase(self) -> Phase:
        """The loss and the parameters it moves."""
        return self.functions.phase

    @property
    def name(self) -> str:
        """The phase's name."""
        return self.phase.name

    def moves_at(self, step: int, turn: int) -> bool:
        """Whether it moves.

        Args:
            step: Number of the training step, from 0.
            turn: How many times all tasks have had their turn in batches.
        """
        return step in self.span and turn % self.phase.every == 0

    def update(self, batch: TaskBatch, step: int) -> MultiTaskUpdate:
        """A move waiting to be made; its heads are told how far training is.

        Args:
            batch: The windows.
            step: Number of the training step.
        """
        index = step - self.span.start
        for head in self._heads:
            head.progressed(index / len(self.span))
        return MultiTaskUpdate(self.functions, self.optimizer, batch, self.sharing, index, len(self.span), self._seed)

    def move(self, update: MultiTaskUpdate) -> dict[str, float]:
        """Lets the balancer make the move: the only place where parameters move.

        Returns:
            Numbers for the log, `moves` of the optimizer among them.
        """
        before, mixture = self.optimizer.moves, self.sharing.mixture(update.task_ids)
        if mixture is not None:
            name = type(self.balancer).__name__
            if not isinstance(self.balancer, LossWeighting):
                refuse_mixture(self.sharing, name)
            update = update.across(mixture, name)
        numbers = checked_numbers(self.balancer, "step", self.balancer.step(update))
        self.phase.after_step()
        return numbers | {"moves": float(self.optimizer.moves - before)}

    def sharing_changes_at(self, step: int) -> bool:
        """Whether what the tasks share may change after training step `step` (from 0)."""
        return step in self.span and self.sharing.due(step - self.span.start)

    def change_sharing(self, probe: TaskSampler, step: int) -> dict[str, float]:
        """Lets a sharing change, with the gradients of all tasks on windows of a stream of their own.

        Args:
            probe: Draws the windows.
            step: Number of the training step after which it changes.

        Returns:
            Numbers for the log.

        Raises:
            InputError: Losses or gradients are not finite; names the tasks.
        """
        like = self.functions.agent.observation_mean
        batches = [probe.draw().to(like.device, like.dtype) for _ in range(self.sharing.probes)]
        with isolated(self._seed, "probe", step, device=like.device):
            gradients = self.functions.dense_gradients(batches, self.sharing)
        self._check(gradients, step)
        parameters = self.functions.space.select(self.functions.agent)
        progress = (step - self.span.start) / len(self.span)
        return checked_numbers(self.sharing, "update", self.sharing.update(parameters, gradients, progress))

    def _check(self, gradients: DenseGradients, step: int) -> None:
        finite = gradients.losses.isfinite() & gradients.dense.norm(dim=1).isfinite()
        if not bool(finite.all()):
            names = self.functions.agent.spec.task_names
            spoilt = [names[task] for task in gradients.task_ids[~finite].tolist()]
            raise InputError(
                f"losses or gradients of {', '.join(spoilt)} are not finite at step {step}, on windows drawn to "
                "change what the tasks share. Check the data with `mtorl info --verify`, or lower --optimizer.lr."
            )

    def conclude(self, probe: TaskSampler) -> dict[str, float]:
        """Lets what the tasks share learn, after the last step, what only acting needs; see `Sharing.conclude`.

        Args:
            probe: Whose data the windows are of.
        """
        stream = numpy_stream(self._seed, f"conclusion {self.name}")
        with isolated(self._seed, f"conclusion {self.name}"):
            windows = probe.other(CONCLUDING_WINDOWS, self.sharing.concluding, stream)
            return checked_numbers(self.sharing, "conclude", self.sharing.conclude(windows))

    def state_dict(self) -> State:
        """Everything that its next moves depend on, besides the agent, by the names in `PARTS`."""
        return {plural: getattr(self, part).state_dict() for plural, part in PARTS.items()}

    def load_checkpoint(self, state: State) -> None:
        """Continues from a checkpoint of the run: of every part what the phases had, by their names."""
        for plural, name in PARTS.items():
            part = getattr(self, name)
            with fitting(f"{plural} of {self.name}", type(part).__name__):
                part.load_state_dict(state[plural][self.name])


def phase_trainers(
    agent: Agent,
    balancer: Balancer,
    sharing: Sharing,
    optimizer: OptimizerSettings,
    steps: int,
    seed: int,
    execution: Execution | Computation = "auto",
) -> list[PhaseTrainer]:
    """One for each phase of an agent, in their order.

    Args:
        agent: The agent, on its device.
        balancer: Copied for every phase.
        sharing: Copied for every phase.
        optimizer: Settings for every phase.
        steps: Training steps in all.
        seed: Derives their streams.
        execution: How per-task gradients are computed, or all of the computation.
    """
    shared = phase_sharing(agent, sharing, seed)
    return [
        _phase_trainer(
            phase_functions(agent, phase, shared, execution), balancer, shared[phase.name], optimizer, steps, seed
        )
        for phase in agent.phases
    ]


def phase_sharing(agent: Agent, sharing: Sharing, seed: int) -> dict[str, Sharing]:
    """What the tasks share in each phase of an agent, as training begins: all that playing a run needs.

    Args:
        agent: The agent, on its device.
        sharing: Copied for every phase.
        seed: Derives their streams.
    """
    shared = {phase.name: _own_sharing(sharing, agent, phase, seed) for phase in agent.phases}
    _refuse_two_ways(agent, shared)
    return shared


def _refuse_two_ways(agent: Agent, shared: dict[str, Sharing]) -> None:
    """Raises InputError if tasks would have two values of a tensor: of two phases, or also of their network."""
    holders: dict[str, str] = {}
    for phase in agent.phases:
        member = shared[phase.name]
        kind, mixed = type(member).__name__, dict(zip(phase.space.names, phase.space.mixed, strict=True))
        for name in member.own:
            if mixed[name]:
                reason = "tasks mix in their network already, or have with their group"
            elif name in holders:
                reason = f"the phases {holders[name]} and {phase.name} both move, each with values of its own"
            else:
                holders[name] = phase.name
                continue
            raise InputError(
                f"{kind} would give every task its own values of {name}, which {reason}; expected one way of sharing "
                "for a tensor. Use another sharing, such as Shared, or another network."
            )


def phase_functions(
    agent: Agent, phase: Phase, shared: dict[str, Sharing], execution: Execution | Computation = "auto"
) -> PhaseFunctions:
    """The losses and gradients of a phase, whose losses may read what other phases move.

    Args:
        agent: The agent.
        phase: One of its phases.
        shared: What the tasks share in each phase.
        execution: How per-task gradients are computed, or all of the computation.
    """
    others = [(it.space, shared[it.name]) for it in agent.phases if it is not phase]
    together, place = processes(), agent.phases.index(phase)
    if together is None:
        return PhaseFunctions(agent, place, execution, companions=others)
    return SharedFunctions(together, agent, place, execution, companions=others)


def _own_sharing(sharing: Sharing, agent: Agent, phase: Phase, seed: int) -> Sharing:
    own, names = copy.deepcopy(sharing), agent.spec.task_names
    own.task_names, own.groups = names, agent.spec.groups
    own.init(phase.space, len(names), torch_stream(seed, f"sharing {phase.name}"))
    return own.to(agent.observation_mean.device)


def _phase_trainer(
    functions: PhaseFunctions, balancer: Balancer, sharing: Sharing, settings: OptimizerSettings, steps: int, seed: int
) -> PhaseTrainer:
    agent, phase, own = functions.agent, functions.phase, copy.deepcopy(balancer)
    whole = [type(it).__name__ for it in own.modules() if isinstance(it, Balancer) and not it.spreads]
    if whole and processes():
        raise InputError(
            f"{whole[0]} looks at what the heads see of all tasks, which no process has where tasks are spread over "
            "several. Train in one process, or with another balancer."
        )
    if whole and functions.compiled:
        raise InputError(
            f"{whole[0]} needs gradients at what the heads see, which is inside of what is compiled. Leave --compile "
            "out, or train with another balancer."
        )
    own.plan(len(phase.span(steps)))
    own.init(len(agent.spec.task_names), phase.space, torch_stream(seed, f"balancer {phase.name}"))  # stays on the CPU
    learned = list(own.parameters())
    rows = [*agent.task_rows(), *sharing.parameters(), *learned]  # what a balancer learns belongs to tasks too
    moved = nn.ModuleList([phase.module, sharing])
    optimizer = PhaseOptimizer(
        settings, moved, learned, rows, len(phase.span(steps)), own.parameter_rate(), agent.row_of()
    )
    return PhaseTrainer(functions, sharing, own, optimizer, steps, seed)


def checked_numbers(member: object, method: str, returned: Any) -> dict[str, float]:
    """What a method returned, if it can be logged; a balancer may be somebody's first.

    Raises:
        TypeError: It is no dictionary of finite numbers.
    """
    if not isinstance(returned, dict):
        wrong = type(returned).__name__
    else:
        wrong = ", ".join(f"{key}: {value!r}" for key, value in returned.items() if not _is_number(value))
        if not wrong:
            return returned
    raise TypeError(
        f"{type(member).__name__}.{method} returned {wrong}; expected a dictionary of finite numbers for the log, such "
        "as update.descend_loss returns."
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
