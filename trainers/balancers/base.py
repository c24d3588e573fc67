"""How the losses of many tasks become one move.

Balancers think in T numbers, or T times T: they compute on the CPU in float64, whatever the agent computes on. All of
their state is indexed by the task's id, so that batches of some of the tasks work with every method.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mtorl import InputError
from mtorl.schema import State

if TYPE_CHECKING:  # a balancer can be used, and written, without the rooms that hand these over
    from mtorl.agents.parameters import ParameterSpace
    from mtorl.trainers.update import MultiTaskUpdate

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Numbers = TypeVar("Numbers", Tensor, Vector)
VANISHED = 1e-30
"""A task whose squared gradient norm is below this share of the largest one has no gradient: its weight is zero."""
LEAST_SHARE = 1e-4
"""For balancers that go by the size of losses, none is smaller than this share of their mean."""


def sizes(losses: Numbers, balancer: "Balancer") -> Numbers:
    """Losses as what balancers may divide by or take the logarithm of: one rule for all of them.

    A loss of (nearly) zero would get a weight that drowns all others: it counts as `LEAST_SHARE` of the mean. Where all
    are zero, all count as one.

    Args:
        losses: `[T]`, of a batch.
        balancer: Who asks, for the message.

    Raises:
        InputError: A loss is negative: it has no size.
    """
    least, mean = float(losses.min()), float(losses.mean())
    if least < 0:
        raise InputError(
            f"{type(balancer).__name__} goes by the relative size of losses; found a loss of {least:.4g}. Use it where "
            "losses cannot be negative (not with the policies of TD3BC, CQL and IQL, nor gaussian ones), or another "
            "balancer."
        )
    return losses.clip(min=LEAST_SHARE * mean) if mean > 0 else losses + 1


class Balancer(nn.Module, ABC):
    """Makes the move of one batch, through the update's verbs. State lives in buffers, so it is saved and resumed.

    Attributes:
        needs: What it asks of the update, for lists.
        task_count: Number of tasks of the suite; None before `init`.
        steps: Training steps of its phase, see `plan`.
        learning_rate: Of its parameters, if it has any, after warm-up; None: that of the agent.
        spreads: Whether the tasks may be spread over processes; otherwise it looks at more than losses and gradients.
    """

    needs = ""
    task_count: int | None = None
    steps = 1000
    learning_rate: float | None = None
    spreads = True

    def plan(self, steps: int) -> None:
        """Tells it, and what it holds, how many training steps its phase has; called before `init`."""
        for part in self.modules():
            if isinstance(part, Balancer):
                part.steps = steps

    def span(self, length: float) -> int:
        """Training steps; a length below one is a share of all of them."""
        return max(1, round(length * self.steps)) if 0 < length < 1 else round(length)

    def parameter_rate(self) -> float | None:
        """Learning rate of the parameters that it or what it holds has; None: that of the agent."""
        learning = [part for part in self.modules() if isinstance(part, Balancer) and [*part.parameters(recurse=False)]]
        return learning[0].learning_rate if learning else None

    def init(self, tasks: int, space: "ParameterSpace | None", generator: torch.Generator) -> None:
        """Prepares for T tasks and the shared parameters of one phase; called once, before the optimizer is built.

        Args:
            tasks: Number of tasks of the suite.
            space: The shared parameters; None outside training.
            generator: Source of all of the balancer's draws.
        """
        self.task_count, self._generator = tasks, generator
        for name, value in self.initial_state(tasks, 0 if space is None else len(space)).items():
            self.register_buffer(name, value)

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """Buffers and their first values, made by `init`; indexed by the task's id where they belong to tasks.

        Args:
            tasks: T, of the suite.
            size: P.
        """
        return {}

    @abstractmethod
    def step(self, update: "MultiTaskUpdate") -> dict[str, float]:
        """Makes the move.

        Returns:
            Numbers for the log.
        """

    def get_extra_state(self) -> State:
        """Where the draws stand."""
        return {"generator": self._generator.get_state()} if self.task_count is not None else {}

    def set_extra_state(self, state: State) -> None:
        """Continues the draws from `get_extra_state`."""
        if state:
            self._generator.set_state(state["generator"])

    def _load_from_state_dict(self, state_dict: State, prefix: str, *arguments: Any) -> None:
        """Buffers take the precision that they were saved with."""
        for name, value in self._buffers.items():
            saved = state_dict.get(prefix + name)
            if value is not None and saved is not None:
                self._buffers[name] = value.to(saved.dtype)
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def _ready(self, tasks: int) -> None:
        """Makes the balancer usable outside training, for `tasks` tasks and with a generator of its own."""
        if self.task_count is None:
            self.init(tasks, None, torch.Generator().manual_seed(0))


class LossWeighting(Balancer):
    """Methods that weight the losses and then take one backward pass of their sum."""

    needs = "losses"

    @abstractmethod
    def weights(self, losses: Tensor, task_ids: Tensor) -> Tensor:
        """Weights `[T]` for the losses `[T]` of the tasks with these ids `[T]`."""

    def objective(self, losses: Tensor, weights: Tensor, task_ids: Tensor) -> Tensor:
        """The scalar to descend: by default the weighted sum."""
        return (weights * losses).sum()

    def step(self, update: "MultiTaskUpdate") -> dict[str, float]:
        """One forward pass, one backward pass of the weighted sum."""
        values, task_ids = update.losses().values.to("cpu", torch.float64), update.task_ids.cpu()
        weights = self.weights(values, task_ids)
        return update.descend_loss(self.objective(values, weights, task_ids), weights)


class GradientAggregation(Balancer):
    """Methods whose direction is a weighted sum of the task gradients, with weights that depend on their Gramian.

    The gradients never leave the update: a method sees `[T, T]` numbers.
    """

    needs = "gradients of single tasks (their inner products)"

    @abstractmethod
    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """Weights `[T]` of the task gradients.

        Args:
            gramian: Inner products `[T, T]`, symmetric; no gradient is zero.
            losses: `[T]`.
            task_ids: `[T]`.
        """

    def weights(self, gramian: Tensor, losses: Tensor | None = None, task_ids: Tensor | None = None) -> Tensor:
        """Weights `[T]` of the task gradients. A task whose gradient is zero has weight zero and no influence.

        Args:
            gramian: Inner products `[T, T]` of the task gradients.
            losses: `[T]`, for methods that look at them too; ones by default.
            task_ids: `[T]`, the rows' tasks; the first T by default.

        Raises:
            InputError: The Gramian is not square, or holds NaN or infinity.
        """
        matrix = gramian.detach().to("cpu", torch.float64).numpy()
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"the Gramian has shape {list(matrix.shape)}; expected [T, T], one row per task.")
        count = len(matrix)
        ids = np.arange(count) if task_ids is None else task_ids.cpu().numpy()
        if not np.isfinite(matrix).all():
            bad = ids[~np.isfinite(np.diag(matrix))].tolist()
            raise InputError(f"the gradients of tasks {bad} are not finite, though their losses are. Lower the lr.")
        values = np.ones(count) if losses is None else losses.detach().to("cpu", torch.float64).numpy()
        self._ready(count)
        alive = self._alive(matrix)
        weights = np.zeros(count)
        if alive.any():
            weights[alive] = self.solve(matrix[np.ix_(alive, alive)], values[alive], ids[alive])
        return torch.from_numpy(weights)

    def _alive(self, gramian: Matrix) -> NDArray[np.bool_]:
        """Which tasks `[T]` have a gradient."""
        squares = np.diag(gramian)
        return squares > VANISHED * squares.max(initial=0.0)

    def step(self, update: "MultiTaskUpdate") -> dict[str, float]:
        """All task gradients, one direction."""
        gradients = update.gradients()
        weights = self.weights(gradients.gramian, gradients.losses, update.task_ids)
        return update.descend(gradients.combined(weights), weights)


class MatrixAggregation(Balancer):
    """Methods that need the whole matrix of task gradients.

    Attributes:
        last_weights: `[T]`, the tasks' weights in the last direction, for the log; None where it is no weighted sum.
    """

    needs = "gradients of single tasks (the whole matrix)"
    last_weights: Tensor | None = None

    @abstractmethod
    def aggregate(self, rows: Tensor, losses: Tensor | None = None, task_ids: Tensor | None = None) -> Tensor:
        """The direction `[P]`.

        Args:
            rows: Task gradients `[T, P]`; not to be changed.
            losses: `[T]`; ones by default.
            task_ids: `[T]`, the rows' tasks; the first T by default.
        """

    def step(self, update: "MultiTaskUpdate") -> dict[str, float]:
        """All task gradients, one direction."""
        gradients = update.gradients()
        direction = self.aggregate(gradients.pulled_back, gradients.losses, update.task_ids)
        return update.descend(direction, self.last_weights)

    def _defaults(self, rows: Tensor, losses: Tensor | None, task_ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """Losses and task ids like the rows; the balancer is ready for as many tasks."""
        if self.task_count is None:
            self.init(len(rows), None, torch.Generator().manual_seed(0))
            for name, value in self.initial_state(*rows.shape).items():
                setattr(self, name, value)
        losses = torch.ones(len(rows)) if losses is None else losses
        task_ids = torch.arange(len(rows)) if task_ids is None else task_ids
        return losses.to(rows), task_ids.to(rows.device)
