"""Losses and gradients of many tasks: three ways to compute the same numbers.

In offline multi-task learning every window belongs to one task, so the graphs of the T losses have nothing in common
and all T gradients together cost the arithmetic of one backward pass. Differentiating a joint graph once per task
would cost T times that.

| execution | how | when |
|---|---|---|
| `joint` | one forward pass for all tasks, T backward passes through its graph | to check the others |
| `loop` | one forward and backward pass per task, whose graph is freed before the next | on the CPU |
| `vmap` | `torch.func.vmap` over tasks, all at once | on a GPU, where a loop waits for the launch of kernels |
| `auto` | `loop` on the CPU, `vmap` elsewhere | |
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtorl import InputError
from mtorl.agents.base import Agent, Phase, TaskLosses
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets.batch import TaskBatch
from mtorl.trainers.computation import Computation, Execution, own_memory
from mtorl.trainers.gradients import DenseGradients, TaskGradients
from mtorl.trainers.rows import GradientRows
from mtorl.trainers.sharing.base import Sharing


class PhaseFunctions:
    """The losses of one phase of an agent and their gradients, as functions of a batch and a sharing.

    Args:
        agent: The agent.
        phase: Position of the phase in `agent.phases`.
        execution: How gradients are computed, or all of the computation.
        chunk: Tasks that `vmap` computes at a time; all by default.
        companions: What the tasks share in the agent's other phases: their losses read each other's networks.

    Attributes:
        execution: How gradients are computed on the agent's device.
        compiled: Losses come out of something compiled, into which nobody can look.

    Raises:
        InputError: The execution is unknown, or all parameters of the phase are frozen.
    """

    def __init__(
        self,
        agent: Agent,
        phase: int = 0,
        execution: Execution | Computation = "auto",
        chunk: int | None = None,
        companions: Sequence[tuple[ParameterSpace, Sharing]] = (),
    ) -> None:
        self.agent, self.position = agent, phase
        computation, device = Computation.of(execution), agent.observation_mean.device
        ways = {"joint": self._joint, "loop": self._loop, "vmap": self._vmap}
        self.execution, self.compiled = computation.way(device), computation.compile is not None
        self._way: Callable[[TaskBatch, Sharing, GradientRows], tuple[Tensor, list[Tensor]]] = ways[self.execution]
        self._at = computation.prepared(self._losses_at, device)
        self._all_at_once = computation.prepared(self._each_differentiated, device)
        self._chunk = chunk
        shared, moved = set(self.phase.space.names), {id(it) for it in self.phase.module.parameters()}
        self._private = {
            name: value
            for name, value in agent.named_parameters()
            if name not in shared and id(value) in moved and value.requires_grad
        }
        if not (shared or self._private):
            raise InputError(
                f"the phase {self.phase.name} has nothing to train: all of its parameters are frozen "
                "(requires_grad=False). Expected some that are not, or an agent without this phase."
            )
        self._rows: Tensor | None = None
        self._companions = companions

    @property
    def phase(self) -> Phase:
        """The loss and the parameters it moves."""
        return self.agent.phases[self.position]

    @property
    def space(self) -> ParameterSpace:
        """What the tasks share."""
        return self.phase.space

    @property
    def private(self) -> dict[str, nn.Parameter]:
        """Parameters that belong to single tasks, by name: heads, task embeddings. Frozen ones are left out."""
        return self._private

    def private_of(self, sharing: Sharing) -> dict[str, nn.Parameter]:
        """The private parameters, and those of a sharing as `sharing.NAME`."""
        return self._private | {_own(name): value for name, value in sharing.named_parameters()}

    def losses(self, batch: TaskBatch, sharing: Sharing) -> TaskLosses:
        """The losses of all tasks of a batch, differentiable in shared and private parameters."""
        if sharing.uniform:
            return self._at({}, batch)
        parameters = self.space.select(self.agent)
        if sharing.common and not self._companions:  # with companions, what a task reads of these is its own
            return self._at(sharing.effective(parameters, batch.tasks[0]), batch)
        ones = [batch.select([position]) for position in range(len(batch.tasks))]
        effective = sharing.effective_each(parameters, torch.tensor(batch.tasks))
        parts = zip(effective, ones, strict=True)
        each = [own_memory(self._at(self._around(sharing, one.tasks) | mine, one)) for mine, one in parts]
        return TaskLosses(
            torch.cat([one.values for one in each]),
            _joined([one.features for one in each]),
            _joined([one.targets for one in each]),
            _joined([one.valid for one in each]),
            each[0].linear,
            owned=_joined([one.owned for one in each]),
        )

    def at(self, parameters: dict[str, Tensor], batch: TaskBatch, sharing: Sharing, task: int) -> TaskLosses:
        """The losses of one task where what tasks share has other values, differentiable in these.

        Args:
            parameters: All that tasks share, by name.
            batch: Windows of the task alone.
            sharing: Which of it the task computes with.
            task: Its id; in `torch.func.vmap` the batch cannot say it.
        """
        if sharing.uniform:
            return self._at(parameters, batch)
        around = self._around(sharing, [task])
        return self._at(around | sharing.effective(parameters, task), batch)

    def gradients(self, batch: TaskBatch, sharing: Sharing) -> tuple[TaskGradients, dict[str, Tensor]]:
        """The gradient of every task's loss with respect to the shared parameters.

        Returns:
            Gradients of the shared parameters per task, and those of the private ones (see `private_of`) by name,
            summed over tasks.
        """
        ids = torch.tensor(batch.tasks)
        rows = GradientRows(self.space, self._buffer(len(ids)), sharing, ids)
        losses, private = self._way(batch, sharing, rows)
        return TaskGradients(losses.cpu(), rows.values, ids), self._named(private, rows)

    def _named(self, private: list[Tensor], rows: GradientRows) -> dict[str, Tensor]:
        """Gradients of the private parameters and of the sharing's own, as `private_of` names them."""
        return dict(zip(self._private, private, strict=True)) | {_own(name): it for name, it in rows.own.items()}

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Completes the gradients that a backward pass from `losses` has left; here they are complete."""

    def dense_gradients(self, batches: Iterable[TaskBatch], sharing: Sharing) -> DenseGradients:
        """The gradient of every task's loss at its own effective parameters, mean over batches of the same tasks.

        Without any batch there are no rows.
        """
        like = self.agent.observation_mean
        rows, total, ids, count = like.new_zeros(0, 0), like.new_zeros(0), torch.empty(0, dtype=torch.long), 0
        for count, batch in enumerate(batches, start=1):
            rows, ids = self._buffer(len(batch.task_ids)), batch.task_ids
            losses, _ = self._way(batch, sharing, GradientRows(self.space, rows, adding=count > 1))
            total = losses if count == 1 else total + losses
        return DenseGradients(total / max(count, 1), rows.div_(count) if count > 1 else rows, ids)

    def _buffer(self, tasks: int) -> Tensor:
        """`[tasks, P]`, made once: for a large network it is the largest tensor of all."""
        like = self.agent.observation_mean
        if self._rows is None or len(self._rows) < tasks or self._rows.dtype != like.dtype:
            self._rows = like.new_empty(tasks, len(self.space))
        return self._rows[:tasks]

    def _losses_at(self, parameters: dict[str, Tensor], batch: TaskBatch) -> TaskLosses:
        """The losses where some parameters of the agent have other values."""
        if not parameters:
            return self.phase.losses(batch)
        return torch.func.functional_call(self.agent, parameters, (self.position, batch))

    @torch.no_grad()
    def _around(self, sharing: Sharing, tasks: Sequence[int], stacked: bool = False) -> dict[str, Tensor]:
        """What tasks compute with that this phase does not move: other phases' parameters, and those that follow some.

        Args:
            sharing: Of this phase.
            tasks: One task; several if stacked, and then each parameter has the tasks as its first axis.
            stacked: See there.
        """
        if not self._companions and not self.agent.shadows:
            return {}
        everything, mine = dict(self.agent.named_parameters()), set(self.space.names)
        found: dict[str, Tensor] = {}
        for space, member in (*self._companions, (self.space, sharing)):
            if member.uniform:
                continue
            others = {name: name for name in space.names if name not in mine}
            followers = {name: source for name, source in self.agent.shadows.items() if source in space.names}
            for sources, effective in ((others, member.effective), (followers, member.following)):
                # a member knows parameters by their sources' names
                values: dict[str, Tensor] = {source: everything[name] for name, source in sources.items()}
                each = [effective(values, task) for task in tasks] if sources else []
                for name, source in sources.items():
                    rows = [one[source] for one in each]
                    found[name] = torch.stack(rows) if stacked else rows[0]
        return found

    def _leaves(self, sharing: Sharing, shared: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """What the task computes with, cut off from where it came from: gradients end here."""
        if sharing.uniform:
            return shared
        return {name: value.detach().requires_grad_() for name, value in sharing.effective(shared, task).items()}

    def _differentiate(
        self,
        loss: Tensor,
        leaves: dict[str, Tensor],
        rows: GradientRows,
        row: int,
        private: list[Tensor],
        keep: bool = False,
    ) -> None:
        """Writes the shared gradient of one task into its row and adds the private ones to their sums."""
        wanted = [*leaves.values(), *self._private.values()]
        found = torch.autograd.grad(loss, wanted, retain_graph=keep, allow_unused=True)
        shared = zip(leaves.items(), found, strict=False)
        rows.write(row, {name: torch.zeros_like(leaf) if value is None else value for (name, leaf), value in shared})
        for total, gradient in zip(private, found[len(leaves) :], strict=True):
            if gradient is not None:
                total += gradient

    def _loop(self, batch: TaskBatch, sharing: Sharing, rows: GradientRows) -> tuple[Tensor, list[Tensor]]:
        shared = self.space.select(self.agent)
        private = [torch.zeros_like(value) for value in self._private.values()]

        def one(row: int, task: int) -> Tensor:  # a function: its graph dies with it, before the next is built
            alone, leaves = batch.select([row]), self._leaves(sharing, shared, task)
            around = {} if sharing.uniform else self._around(sharing, alone.tasks)
            found = self._at({} if sharing.uniform else around | leaves, alone)
            self._differentiate(found.values[0], leaves, rows, row, private)
            return found.values.detach().clone()  # what is compiled uses its memory again

        return torch.cat([one(row, task) for row, task in enumerate(batch.tasks)]), private

    def _joint(self, batch: TaskBatch, sharing: Sharing, rows: GradientRows) -> tuple[Tensor, list[Tensor]]:
        shared = self.space.select(self.agent)
        private = [torch.zeros_like(value) for value in self._private.values()]
        leaves = [self._leaves(sharing, shared, task) for task in batch.tasks]
        if sharing.uniform:
            values = self._at({}, batch).values
        else:
            each = [batch.select([row]) for row in range(len(leaves))]
            parts = zip(leaves, each, strict=True)
            values = torch.cat([self._at(self._around(sharing, one.tasks) | mine, one).values for mine, one in parts])
        for row, mine in enumerate(leaves):
            self._differentiate(values[row], mine, rows, row, private, keep=True)
        return values.detach(), private

    def _vmap(self, batch: TaskBatch, sharing: Sharing, rows: GradientRows) -> tuple[Tensor, list[Tensor]]:
        parameters = {name: value.detach() for name, value in self.space.select(self.agent).items()}
        private = {name: value.detach() for name, value in self._private.items()}
        effective, around = parameters, dict[str, Tensor]()
        if not sharing.uniform:
            effective = sharing.stacked_effective(parameters, torch.tensor(batch.tasks))
            around = self._around(sharing, batch.tasks, stacked=True)
        with sdpa_kernel(SDPBackend.MATH):  # the others do not know vmap: it would call them task by task
            found, others, losses = self._all_at_once(effective, not sharing.uniform, private, batch, around)
        rows.write_all(found)
        return losses.clone(), [others[name] for name in private]  # a compiled step has one place for its losses

    def _each_differentiated(
        self,
        effective: dict[str, Tensor],
        stacked: bool,
        private: dict[str, Tensor],
        batch: TaskBatch,
        around: dict[str, Tensor],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """Of all tasks at once: shared gradients `[T, ...]`, private ones, summed, and losses `[T]`."""

        def loss(
            mine: dict[str, Tensor], others: dict[str, Tensor], windows: list[Tensor], rest: dict[str, Tensor]
        ) -> Tensor:
            alone = batch.with_tensors(value[None] for value in windows)
            return self._losses_at({**rest, **mine, **others}, alone).values[0]

        function = torch.func.vmap(
            torch.func.grad_and_value(loss, argnums=(0, 1)),
            in_dims=(0 if stacked else None, None, 0, 0),
            randomness="different",
            chunk_size=self._chunk,
        )
        (found, others), losses = function(effective, private, batch.tensors, around)
        return found, {name: value.sum(0) for name, value in others.items()}, losses


def _own(name: str) -> str:
    """What a parameter of a sharing is called among the private ones."""
    return f"sharing.{name}"


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    return None if any(part is None for part in parts) else torch.cat([part for part in parts if part is not None])
