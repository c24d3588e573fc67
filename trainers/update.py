"""One batch, and a move waiting to be made."""

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.agents.base import Agent, Phase, TaskLosses
from mtorl.datasets.sampler import TaskBatch
from mtorl.trainers.optimizer import PhaseOptimizer
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing.base import Sharing


class MultiTaskUpdate:
    """What a balancer is handed: it asks for losses, and makes the move.

    Args:
        agent: The agent.
        phase: Position of the phase in `agent.phases`.
        optimizer: Moves the parameters of this phase.
        batch: The windows.
        sharing: Which parameters each task computes with.
        index: Number of the training step, from 0.
        steps: Training steps in all.
        seed: Derives the dropout noise, together with the index: all passes of one update share it.
    """

    def __init__(
        self,
        agent: Agent,
        phase: int,
        optimizer: PhaseOptimizer,
        batch: TaskBatch,
        sharing: Sharing,
        index: int,
        steps: int,
        seed: int,
    ) -> None:
        self._agent, self._position, self._optimizer = agent, phase, optimizer
        self._batch, self._index, self._seed = batch, index, seed
        self.sharing = sharing
        self.progress = index / steps
        self.last_losses: Tensor | None = None

    @property
    def phase(self) -> Phase:
        """The loss and the parameters it moves."""
        return self._agent.phases[self._position]

    @property
    def task_ids(self) -> Tensor:
        """Ids `[T]` of the tasks in this batch."""
        return self._batch.task_ids

    def losses(self, tasks: Tensor | None = None) -> TaskLosses:
        """A fresh forward pass at the present parameters.

        Args:
            tasks: Positions in this batch (not ids); all by default.

        Raises:
            InputError: A loss is not finite; names the task and the step.
        """
        batch = self._batch if tasks is None else self._batch.select(tasks)
        with isolated(self._seed, "dropout", self._index, device=batch.valid.device):
            losses = self._pass(batch)
        if not torch.isfinite(losses.values.detach()).all():
            self._refuse(losses.values, batch)
        if tasks is None:
            self.last_losses = losses.values.detach()
        return losses

    def _pass(self, batch: TaskBatch) -> TaskLosses:
        if self.sharing.uniform:
            return self.phase.losses(batch)
        parameters = self.phase.space.select(self._agent)
        each = []
        for position, task in enumerate(batch.task_ids.tolist()):
            effective = self.sharing.effective(parameters, task)
            arguments = (self._position, batch.select([position]))
            each.append(torch.func.functional_call(self._agent, effective, arguments))
        return TaskLosses(
            torch.cat([one.values for one in each]),
            _joined([one.features for one in each]),
            _joined([one.targets for one in each]),
        )

    def descend_loss(self, loss: Tensor) -> dict[str, float]:
        """One backward pass of a scalar, then clipping and a step of the optimizer.

        Returns:
            Numbers for the log.
        """
        self._optimizer.zero_grad()
        loss.backward()
        return self._optimizer.step(self._batch.task_ids)

    def _refuse(self, values: Tensor, batch: TaskBatch) -> None:
        names = self._agent.spec.task_names
        bad = [
            f"{names[task]} ({value})"
            for task, value in zip(batch.task_ids.tolist(), values.detach().tolist(), strict=True)
            if not abs(value) < float("inf")
        ]
        raise InputError(
            f"the loss of phase {self.phase.name} is not finite at step {self._index}: {', '.join(bad)}. Check "
            "the data with `mtorl info --verify`, lower --optimizer.lr or set --optimizer.clip."
        )


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    return None if any(part is None for part in parts) else torch.cat([part for part in parts if part is not None])
