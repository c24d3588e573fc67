"""What training on any set of tasks would do to all tasks' losses, to first order in the outputs of a network.

Near the parameters theta that it has, a network says `f + J (theta' - theta)`. Where losses are squared errors, those
of every task at every theta' then follow from three averages over its data, and the best theta' for a set of tasks
from a linear system.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from mtorl import InputError
from mtorl.datasets.batch import TaskBatch
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers.sketch import Sketch
from mtorl.trainers.sharing import Sharing

SOLVED = 64
"""Linear systems that are solved at once."""
LOOKED_AT = 100
"""Sets of tasks by which `choose_ridge` goes."""
HALVINGS = 12
"""Of the interval of exponents in which `choose_ridge` looks."""


@dataclass(frozen=True)
class LinearisedLosses:
    """The losses of T tasks as functions of d coordinates of a move from where the parameters are.

    Attributes:
        curvature: float64 `[T, d, d]`, mean over outputs of the products of their gradients.
        slope: float64 `[T, d]`, mean of the gradients times what is missing to the recorded values.
        losses: float64 `[T]`, before the move.
        counts: float64 `[d]`, squared length of a move of 1 in each coordinate.
        length: Of the parameters that move.
    """

    curvature: Tensor
    slope: Tensor
    losses: Tensor
    counts: Tensor
    length: float

    def moves(self, subsets: Tensor, ridge: float) -> Tensor:
        """The best moves for sets of tasks, `[m, d]`.

        Args:
            subsets: bool `[m, T]`.
            ridge: What a move costs: times its squared length, for each task of the set.
        """
        size, found = self.slope.shape[1], []
        flat, unit = self.curvature.flatten(1), torch.eye(size, dtype=self.curvature.dtype)
        for part in subsets.to(flat).split(SOLVED):
            systems = (part @ flat).unflatten(1, (size, size)) + ridge * part.sum(1)[:, None, None] * unit
            factors = torch.linalg.cholesky(systems)
            found.append(torch.cholesky_solve((part @ self.slope)[..., None], factors)[..., 0])
        return torch.cat(found)

    def after(self, moves: Tensor) -> Tensor:
        """The losses of all tasks after moves `[m, d]`: `[m, T]`."""
        bent = torch.stack([((moves @ curvature) * moves).sum(1) for curvature in self.curvature], 1)
        return self.losses - 2 * moves @ self.slope.T + bent

    def predicted(self, subsets: Tensor, ridge: float) -> Tensor:
        """The losses `[m, T]` of all tasks after training on sets of tasks, bool `[m, T]`."""
        return self.after(self.moves(subsets, ridge))

    def lengths(self, moves: Tensor) -> Tensor:
        """How long moves `[m, d]` are, as shares of the parameters' length: `[m]`."""
        return (moves.square() @ self.counts).sqrt() / self.length

    def choose_ridge(self, subsets: Tensor, limit: float) -> float:
        """The smallest ridge with which half of the moves are no longer than `limit` of the parameters' length.

        Args:
            subsets: bool `[m, T]`; it looks at `LOOKED_AT` of them.
            limit: A share.
        """
        scale = float(self.curvature.diagonal(dim1=1, dim2=2).mean()) or 1.0
        some = subsets[torch.linspace(0, len(subsets) - 1, min(LOOKED_AT, len(subsets))).long()]
        low, high = -8.0, 8.0  # powers of ten
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            short = float(self.lengths(self.moves(some, scale * 10**middle)).median()) <= limit
            low, high = (low, middle) if short else (middle, high)
        return scale * 10**high


class Linearisation:
    """Gathers `LinearisedLosses` from windows of data.

    Gradients are those of sums of all outputs of a window with random signs: products of different outputs then cancel
    in the mean, and one backward pass per window suffices.

    Args:
        functions: Losses of the phase.
        sharing: With which parameters its tasks compute.
        names: Of the shared parameters that move.
        dimension: See `Sketch`.
        generator: Draws the signs.
        chunk: Windows whose gradients are held at once.

    Raises:
        InputError: The phase's loss is no squared error of predictions.
    """

    def __init__(
        self,
        functions: PhaseFunctions,
        sharing: Sharing,
        names: Sequence[str],
        dimension: int,
        generator: torch.Generator,
        chunk: int = 32,
    ) -> None:
        self.functions, self.sharing, self._generator, self._chunk = functions, sharing, generator, chunk
        self._shared = {name: value.detach() for name, value in functions.space.select(functions.agent).items()}
        self._moved = {name: self._shared[name] for name in names}
        self._sketch = Sketch({name: value.shape for name, value in self._moved.items()}, dimension, generator)

    def gather(self, batches: Iterable[TaskBatch]) -> LinearisedLosses:
        """The averages over windows of all tasks, in the order of their ids."""
        tasks, size = len(self.functions.agent.spec.task_names), self._sketch.dimension
        curvature = torch.zeros(tasks, size, size, dtype=torch.float64)
        slope, losses, outputs = (
            curvature.new_zeros(tasks, size),
            curvature.new_zeros(tasks),
            curvature.new_zeros(tasks),
        )
        with sdpa_kernel(SDPBackend.MATH):  # the others do not know vmap
            for batch in batches:
                for row, task in enumerate(batch.task_ids.tolist()):
                    alone = batch.select([row])
                    count = int(alone.valid.sum()) * self.functions.agent.spec.dimensions_of(task)[1]
                    gradient, loss = self._whole(alone, task)
                    slope[task] -= count * gradient / 2
                    losses[task] += count * loss
                    outputs[task] += count
                    for rows in self._rows(alone, task):
                        curvature[task] += (rows.mT @ rows).cpu()
        length = torch.cat([value.flatten() for value in self._moved.values()]).norm()
        share = outputs.clamp(min=1)
        return LinearisedLosses(
            curvature / share[:, None, None],
            slope / share[:, None],
            losses / share,
            self._sketch.counts.double(),
            float(length),
        )

    def _whole(self, alone: TaskBatch, task: int) -> tuple[Tensor, Tensor]:
        """Gradient `[d]` and loss of a task's windows."""

        def loss(moved: dict[str, Tensor]) -> Tensor:
            return self._found(moved, alone, task)[0][0]

        gradients, value = torch.func.grad_and_value(loss)(self._moved)
        return self._sketch({name: it[None] for name, it in gradients.items()})[0].double().cpu(), value.double().cpu()

    def _found(self, moved: dict[str, Tensor], alone: TaskBatch, task: int) -> tuple[Tensor, Tensor]:
        """Loss `[1]` and predictions of a task's windows after a move."""
        found = self.functions.at(self._shared | moved, alone, self.sharing, task)
        if found.predictions is None:
            raise InputError(
                f"the loss of the phase {self.functions.phase.name} of {type(self.functions.agent).__name__} is no "
                "squared error of predictions, which this grouper needs. Group with CosineAffinity or AgreementKMeans, "
                "or a run of BehaviorCloning or a decision transformer."
            )
        return found.values, found.predictions

    def _rows(self, alone: TaskBatch, task: int) -> Iterator[Tensor]:
        """Gradients `[chunk, d]` of the outputs of a task's windows, with random signs."""
        columns = alone.tensors
        axes = [None if value is alone.task_ids else 0 for value in columns]
        signs = torch.randint(0, 2, alone.actions.shape[1:], generator=self._generator) * 2 - 1
        weights = signs.to(alone.actions) * alone.valid[0, ..., None]

        def output(moved: dict[str, Tensor], window: list[Tensor], weight: Tensor) -> Tensor:
            pairs = zip(window, axes, strict=True)
            one = alone.with_tensors(it if axis is None else it[None, None] for it, axis in pairs)
            return (self._found(moved, one, task)[1][0, 0] * weight).sum()

        function = torch.func.vmap(torch.func.grad(output), in_dims=(None, axes, 0))
        for start in range(0, len(weights), self._chunk):
            part = slice(start, start + self._chunk)
            window = [it if axis is None else it[0, part] for it, axis in zip(columns, axes, strict=True)]
            yield self._sketch(function(self._moved, window, weights[part])).double()
