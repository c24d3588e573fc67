"""One batch, and a move waiting to be made."""

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.agents.base import Phase, TaskLosses
from mtorl.datasets.sampler import TaskBatch
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import TaskGradients
from mtorl.trainers.optimizer import PhaseOptimizer
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing.base import Sharing


class MultiTaskUpdate:
    """What a balancer is handed: it asks for losses and gradients, and makes the move.

    Args:
        functions: Losses and gradients of the phase.
        optimizer: Moves the parameters of this phase.
        batch: The windows.
        sharing: Which parameters each task computes with.
        index: Number of the training step, from 0.
        steps: Training steps in all.
        seed: Derives the dropout noise, together with the index: all passes of one update share it.

    Attributes:
        sharing: The same.
        progress: Share of training that is done, in [0, 1).
        last_losses: `[T]`, of the first pass over all tasks; None before it.
        last_weights: `[T]`, the weight of every task in the move, as far as the balancer said.
        last_gradients: Of the last call of `gradients` with all tasks.
    """

    def __init__(
        self,
        functions: PhaseFunctions,
        optimizer: PhaseOptimizer,
        batch: TaskBatch,
        sharing: Sharing,
        index: int,
        steps: int,
        seed: int,
    ) -> None:
        self._functions, self._optimizer = functions, optimizer
        self._batch, self._index, self._seed = batch, index, seed
        self.sharing = sharing
        self.progress = index / steps
        self.last_losses: Tensor | None = None
        self.last_weights: Tensor | None = None
        self.last_gradients: TaskGradients | None = None

    @property
    def phase(self) -> Phase:
        """The loss and the parameters it moves."""
        return self._functions.phase

    @property
    def task_ids(self) -> Tensor:
        """Ids `[T]` of the tasks in this batch."""
        return self._batch.task_ids

    def losses(self, tasks: Tensor | None = None) -> TaskLosses:
        """A fresh forward pass at the present parameters, again after a move.

        Args:
            tasks: Positions in this batch (not ids); all by default.

        Raises:
            InputError: A loss is not finite; names the task and the step.
        """
        batch = self._select(tasks)
        with isolated(self._seed, "dropout", self._index, device=batch.valid.device):
            losses = self._functions.losses(batch, self.sharing)
        self._accept(losses.values.detach(), batch, tasks)
        return losses

    def gradients(self, tasks: Tensor | None = None) -> TaskGradients:
        """Forward and backward: the gradient of every task at the price of one backward pass.

        The private parameters (heads, task embeddings) have their own tasks' gradients in `.grad` afterwards.

        Args:
            tasks: Positions in this batch (not ids); all by default.

        Raises:
            InputError: A loss is not finite; names the task and the step.
        """
        batch = self._select(tasks)
        self._optimizer.zero_grad()
        with isolated(self._seed, "dropout", self._index, device=batch.valid.device):
            gradients, private = self._functions.gradients(batch, self.sharing)
        self._accept(gradients.losses, batch, tasks)
        for name, parameter in self._functions.private.items():
            parameter.grad = private[name]
        if tasks is None:
            self.last_gradients = gradients
        return gradients

    def descend(self, direction: Tensor, weights: Tensor | None = None) -> dict[str, float]:
        """Moves the shared parameters against a direction, and the private ones against their `.grad`.

        Args:
            direction: `[P]`.
            weights: `[T]`, the tasks' weights in it, for the log.

        Returns:
            Numbers for the log.
        """
        self._note(weights)
        parameters = self._functions.space.select(self._functions.agent)
        for name, gradient in self._functions.space.unflatten(direction).items():
            parameters[name].grad = gradient
        return self._step()

    def descend_loss(self, loss: Tensor, weights: Tensor | None = None) -> dict[str, float]:
        """One backward pass of a scalar, then clipping and a step of the optimizer.

        Args:
            loss: A scalar, from `losses`.
            weights: `[T]`, the tasks' weights in it, for the log.

        Returns:
            Numbers for the log.
        """
        self._note(weights)
        self._optimizer.zero_grad()
        loss.backward()
        return self._step()

    def descend_features(self, losses: TaskLosses, gradient: Tensor) -> dict[str, float]:
        """Moves what comes after the features against its own gradient, and what comes before against a given one.

        Args:
            losses: From `losses`, with features.
            gradient: `[T, B, L, F]`, in place of the losses' gradient at the features.

        Returns:
            Numbers for the log.
        """
        if losses.features is None:
            raise InputError(f"the phase {self.phase.name} has no features, which this balancer works on.")
        parameters = list(self.phase.module.parameters())
        before = torch.autograd.grad(losses.features, parameters, gradient, retain_graph=True, allow_unused=True)
        after = [parameter for parameter, found in zip(parameters, before, strict=True) if found is None]
        heads = iter(torch.autograd.grad(losses.values.sum(), after, allow_unused=True))
        for parameter, found in zip(parameters, before, strict=True):
            parameter.grad = next(heads) if found is None else found
        return self._step()

    def at(self, sharing: Sharing) -> "MultiTaskUpdate":
        """The same batch, waiting for a move at other parameters."""
        other = MultiTaskUpdate(self._functions, self._optimizer, self._batch, sharing, self._index, 1, self._seed)
        other.progress = self.progress
        return other

    def _step(self) -> dict[str, float]:
        used = self.sharing.used(self._batch.task_ids)
        if used is None:
            return self._optimizer.step(self._batch.task_ids)
        space = self._functions.space
        parameters = space.select(self._functions.agent)
        unused = [(parameters[name], ~mask) for name, mask in space.unflatten(used).items() if not bool(mask.all())]
        return self._optimizer.step(self._batch.task_ids, unused)

    def _note(self, weights: Tensor | None) -> None:
        if weights is not None:
            self.last_weights = weights.detach()

    def _select(self, tasks: Tensor | None) -> TaskBatch:
        return self._batch if tasks is None else self._batch.select(tasks)

    def _accept(self, values: Tensor, batch: TaskBatch, tasks: Tensor | None) -> None:
        if not torch.isfinite(values).all():
            self._refuse(values, batch)
        if tasks is None and self.last_losses is None:
            self.last_losses = values

    def _refuse(self, values: Tensor, batch: TaskBatch) -> None:
        names = self._functions.agent.spec.task_names
        bad = [
            f"{names[task]} ({value})"
            for task, value in zip(batch.task_ids.tolist(), values.tolist(), strict=True)
            if not abs(value) < float("inf")
        ]
        raise InputError(
            f"the loss of phase {self.phase.name} is not finite at step {self._index}: {', '.join(bad)}. Check "
            "the data with `mtorl info --verify`, lower --optimizer.lr or set --optimizer.clip."
        )
