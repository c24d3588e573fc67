"""One batch, and a move waiting to be made."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor, nn

from mtorl import InputError
from mtorl.agents.base import Agent, Phase, TaskLosses
from mtorl.datasets.batch import TaskBatch
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import TaskGradients
from mtorl.trainers.optimizer import PhaseOptimizer
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing.base import Mixture, Sharing


class MultiTaskUpdate:
    """What a balancer is handed: it asks for losses and gradients, and makes the move.

    Args:
        functions: Losses and gradients of the phase.
        optimizer: Moves the parameters of this phase.
        batch: The windows.
        sharing: Which parameters each task computes with.
        index: Number of the training step, from 0.
        steps: Training steps in all.
        seed: Derives the dropout noise, together with the index: the same call twice, before and after a move, sees the
            same noise.

    Attributes:
        sharing: The same.
        progress: Share of training that is done, in [0, 1).
        first_losses: `[T]`, of each task's first forward pass; NaN before it.
        weights: `[T]`, the weight of every task in the move, as far as the balancer said.
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
        self._batch, self._index, self._steps, self._seed = batch, index, steps, seed
        self.sharing = sharing
        self.progress = index / steps
        self.weights: Tensor | None = None
        self.first_losses = torch.full((len(batch.task_ids),), float("nan"))
        self._whole: tuple[MultiTaskUpdate, Tensor] | None = None
        self._task_ids = torch.tensor(batch.tasks)

    @property
    def phase(self) -> Phase:
        """The loss and the parameters it moves."""
        return self._functions.phase

    @property
    def agent(self) -> Agent:
        """Whose phase it is."""
        return self._functions.agent

    @property
    def task_ids(self) -> Tensor:
        """Ids `[T]` of the tasks in this batch, on the CPU."""
        return self._task_ids

    def select(self, positions: Sequence[int] | Tensor) -> "MultiTaskUpdate":
        """The same update for some of its tasks only: other tasks' heads stay where they are in its moves.

        Args:
            positions: Of the tasks in this batch (not their ids).
        """
        places = torch.as_tensor(positions).cpu()
        part = self._copy(self._batch.select(places), self.sharing)
        part._whole = self, places
        return part

    def at(self, sharing: Sharing) -> "MultiTaskUpdate":
        """The same batch, waiting for a move at other parameters."""
        other = self._copy(self._batch, sharing)
        other._whole = self, torch.arange(len(self.task_ids))
        return other

    def across(self, mixture: Mixture, balancer: str) -> "MultiTaskUpdate":
        """The same batch seen at several points at once, for a balancer that weights losses.

        Args:
            mixture: The points.
            balancer: Class of the balancer, to refuse it by name if it asks for more.
        """
        return _AcrossUpdate(self, mixture, balancer)

    def _copy(self, batch: TaskBatch, sharing: Sharing) -> "MultiTaskUpdate":
        return MultiTaskUpdate(self._functions, self._optimizer, batch, sharing, self._index, self._steps, self._seed)

    def losses(self) -> TaskLosses:
        """A fresh forward pass at the present parameters, again after a move; the values are on the CPU.

        Raises:
            InputError: A loss is not finite; names the task and the step.
        """
        with isolated(self._seed, "dropout", self._index, device=self._batch.valid.device):
            losses = self._functions.losses(self._batch, self.sharing)
        values = losses.values.cpu()  # once, for all who look at them
        self._accept(values.detach())
        return replace(losses, values=values)

    def gradients(self) -> TaskGradients:
        """Forward and backward: the gradient of every task at the price of one backward pass.

        The private parameters (heads, task embeddings) have their own tasks' gradients in `.grad` afterwards.

        Raises:
            InputError: A loss is not finite; names the task and the step.
        """
        self._optimizer.zero_grad()
        with isolated(self._seed, "dropout", self._index, device=self._batch.valid.device):
            gradients, private = self._functions.gradients(self._batch, self.sharing)
        self._accept(gradients.losses)
        for name, parameter in self._functions.private_of(self.sharing).items():
            parameter.grad = private[name]
        return gradients

    def draws(self, count: int) -> list[TaskGradients]:
        """Gradients of every task on so many different parts of its windows, at the price of one pass over all.

        The private parameters have the mean of the parts' gradients in `.grad` afterwards.

        Raises:
            InputError: There are fewer windows than parts, or a loss is not finite; names the task and the step.
        """
        self._optimizer.zero_grad()
        found: list[TaskGradients] = []
        for number, part in enumerate(self._batch.parts(count), start=1):
            with isolated(self._seed, "dropout", self._index, number, device=part.valid.device):
                gradients, private = self._functions.gradients(part, self.sharing)
            if number < count:  # the next part overwrites the matrix
                gradients = gradients.kept()
            found.append(gradients)
            for name, parameter in self._functions.private.items():
                share = private[name] / count
                parameter.grad = share if parameter.grad is None else parameter.grad + share
        self._accept(torch.stack([part.losses for part in found]).mean(0))
        return found

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

    def descend_loss(
        self, loss: Tensor, weights: Tensor | None = None, private: Tensor | None = None
    ) -> dict[str, float]:
        """One backward pass of a scalar, then clipping and a step of the optimizer.

        Args:
            loss: A scalar, from `losses`.
            weights: `[T]`, the tasks' weights in it, for the log.
            private: Another scalar, for the private parameters to descend; the same by default.

        Returns:
            Numbers for the log.
        """
        self._note(weights)
        self._optimizer.zero_grad()
        own = list(self._functions.private_of(self.sharing).values())
        loss.backward(retain_graph=private is not None)
        if private is not None and own:
            found = torch.autograd.grad(private, own, allow_unused=True)  # of no task of this process, it may be
            for parameter, gradient in zip(own, found, strict=True):
                parameter.grad = gradient
        self._functions.add_up(self._moved)
        return self._step()

    def descend_features(self, losses: TaskLosses, gradient: Tensor) -> dict[str, float]:
        """Moves what comes before the features against a given gradient, what comes after them against its own.

        Heads descend the mean of the losses.

        Args:
            losses: From `losses`, with features.
            gradient: `[T, B, L, F]`, in place of the losses' gradient at the features.

        Returns:
            Numbers for the log.
        """
        if losses.features is None:
            raise InputError(f"the phase {self.phase.name} has no features, which this balancer works on.")
        parameters = self._moved
        before: Sequence[Tensor | None] = [None] * len(parameters)
        if losses.features.requires_grad:
            before = torch.autograd.grad(losses.features, parameters, gradient, retain_graph=True, allow_unused=True)
        after = [parameter for parameter, found in zip(parameters, before, strict=True) if found is None]
        heads = iter(torch.autograd.grad(losses.values.mean(), after, allow_unused=True) if after else ())
        for parameter, found in zip(parameters, before, strict=True):
            parameter.grad = next(heads) if found is None else found
        return self._step()

    @property
    def _moved(self) -> list[nn.Parameter]:
        moved = [*self.phase.module.parameters(), *self.sharing.parameters()]
        return [parameter for parameter in moved if parameter.requires_grad]

    def _step(self) -> dict[str, float]:
        task_ids = self.task_ids
        parameters = self._functions.space.select(self._functions.agent) if not self.sharing.uniform else {}
        entries = [(parameters[name], places) for name, places in self.sharing.unused(task_ids).items()]
        numbers = self._optimizer.step(self._index, task_ids, entries)
        self.sharing.after_step(parameters, task_ids)
        return numbers

    def _note(self, weights: Tensor | None) -> None:
        if weights is not None:
            self._weigh(weights.detach().cpu(), torch.arange(len(weights)))

    def _weigh(self, values: Tensor, positions: Tensor) -> None:
        """Notes the weights of some tasks, also for the update that this one is a part of."""
        if self.weights is None:
            self.weights = torch.full((len(self.task_ids),), float("nan"), dtype=values.dtype)
        self.weights[positions] = values
        if self._whole is not None:
            whole, places = self._whole
            whole._weigh(values, places[positions])

    def _accept(self, values: Tensor) -> None:
        if not torch.isfinite(values).all():
            self._refuse(values)
        self._record(values.to(torch.float32), torch.arange(len(values)))

    def _record(self, values: Tensor, positions: Tensor) -> None:
        known = self.first_losses[positions]
        self.first_losses[positions] = torch.where(known.isnan(), values, known)
        if self._whole is not None:
            whole, places = self._whole
            whole._record(values, places[positions])

    def _refuse(self, values: Tensor) -> None:
        names = self._functions.agent.spec.task_names
        bad = [
            f"{names[task]} ({value})"
            for task, value in zip(self.task_ids.tolist(), values.tolist(), strict=True)
            if not abs(value) < float("inf")
        ]
        raise InputError(
            f"the loss of phase {self.phase.name} is not finite at step {self._index}: {', '.join(bad)}. Check "
            "the data with `mtorl info --verify`, lower --optimizer.lr or set --optimizer.clip."
        )


def refuse_mixture(sharing: Sharing, balancer: str) -> NoReturn:
    """Raises InputError for a sharing that mixes losses, and a balancer that makes its moves of something else."""
    raise InputError(
        f"{type(sharing).__name__} mixes losses at several points, and {balancer} makes its moves of something else. "
        "Use a balancer that weights losses, such as Equal, DWA, FAMO or Uncertainty, or another sharing."
    )


class _AcrossUpdate(MultiTaskUpdate):
    """See `MultiTaskUpdate.across`."""

    def __init__(self, whole: MultiTaskUpdate, mixture: Mixture, balancer: str) -> None:
        vars(self).update(vars(whole.at(whole.sharing)))
        self._points, self._combined = [whole.at(point) for point in mixture.points], mixture.combined
        self._balancer = balancer

    def losses(self) -> TaskLosses:
        """The combined losses."""
        each = torch.stack([point.losses().values for point in self._points])
        return TaskLosses(self._combined(each))

    def _refused(self, *arguments: object, **options: object) -> NoReturn:
        refuse_mixture(self.sharing, self._balancer)

    gradients = descend = descend_features = select = at = across = _refused
