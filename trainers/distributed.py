"""Training in several processes under torchrun: windows are spread over them, and every process makes every move.

Offline, every window belongs to one task, so what is spread is the table of tasks and windows: process r computes
losses and gradient rows of its share, a range of that table. Then

| what | sent by a process in a step |
|---|---|
| loss weighting | one sum of the weighted gradient, as in data parallelism |
| Gramians | rows become columns, `(T / N) P (N-1) / N`; `[T, T]` numbers; the direction, `P (N-1) / N` |
| the whole matrix | the columns of all, once, where a balancer asks for it |

Agent, balancer, sharing and optimizer are the same in every process: they draw from the same streams, see the same
numbers and make the same move, so that none of them knows of the others, a checkpoint is that of one process, and
another number of processes continues it. What is kept besides the rows is therefore kept by all.

Sums over tasks and windows are taken in another order than in one process: results differ by rounding. The noise of
dropout is drawn by every process for its own share.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mtorl.agents.heads import TaskLosses
from mtorl.datasets.batch import TaskBatch
from mtorl.trainers.computation import own_memory
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import DenseGradients, TaskGradients, gramian
from mtorl.trainers.processes import Processes
from mtorl.trainers.rows import GradientRows
from mtorl.trainers.sharing.base import Sharing


@dataclass(frozen=True)
class Cut:
    """A rectangle of the table of tasks and windows.

    Attributes:
        tasks: Positions of tasks in the batch.
        windows: Of the one task; None: all windows of all these tasks.
    """

    tasks: range
    windows: slice | None = None

    def of(self, batch: TaskBatch) -> tuple[TaskBatch, Tensor | None]:
        """Its windows, and their shares `[tasks]` in the means of the tasks; None: they are all of them."""
        found = batch.select(list(self.tasks))
        if self.windows is None:
            return found, None
        part = found.with_tensors(it if it is found.task_ids else it[:, self.windows] for it in found.tensors)
        return part, part.valid.sum((1, 2)).double() / found.valid.sum((1, 2))


def cuts(tasks: int, windows: int, count: int) -> list[list[Cut]]:
    """What each of several processes computes of a batch, as equal as can be: at most three rectangles.

    Where a range of the table begins or ends within a task's windows, losses and gradients of these count as their
    valid positions do, because a task's loss is a mean over these.
    """
    edges = [tasks * windows * place // count for place in range(count + 1)]
    return [_rectangles(first, last, windows) for first, last in pairwise(edges)]


def _rectangles(first: int, last: int, windows: int) -> list[Cut]:
    """A range of the table, row by row, as rectangles."""
    corners = {first, last, min(-(-first // windows) * windows, last), max(last // windows * windows, first)}
    found = []
    for start, stop in pairwise(sorted(corners)):
        rows = range(start // windows, -(-stop // windows))
        begin = rows.start * windows
        whole = start == begin and stop == rows.stop * windows
        found.append(Cut(rows, None if whole else slice(start - begin, stop - begin)))
    return found


class SpreadGradients(TaskGradients):
    """The gradients of all tasks, of which each process has some columns.

    Args:
        losses: `[T]`.
        columns: `[T, P / N]`.
        task_ids: `[T]`.
        widths: Columns of every process.
        together: The processes.
    """

    columns: Tensor
    _widths: Sequence[int]
    _together: Processes

    def __init__(
        self, losses: Tensor, columns: Tensor, task_ids: Tensor, widths: Sequence[int], together: Processes
    ) -> None:
        named = {"losses": losses, "columns": columns, "task_ids": task_ids, "_widths": widths, "_together": together}
        vars(self).update(named)  # the class is frozen

    @cached_property
    def pulled_back(self) -> Tensor:  # type: ignore[override]
        """The whole matrix `[T, P]`: everybody sends its columns to all others."""
        return self._together.gather(self.columns.T.contiguous(), self._widths).T.contiguous()

    @cached_property
    def gramian(self) -> Tensor:
        """See `TaskGradients.gramian`: each process adds what its columns contribute."""
        return self._together.gather(gramian(self.columns)[None], [1] * self._together.count).sum(0)

    def combined(self, weights: Tensor) -> Tensor:
        """See `TaskGradients.combined`: everybody sends its part of the direction to all others."""
        return self._together.gather(weights.to(self.columns) @ self.columns, self._widths)

    def kept(self) -> TaskGradients:
        """The same, which the next batch does not overwrite."""
        return SpreadGradients(self.losses, self.columns.clone(), self.task_ids, self._widths, self._together)


class SharedFunctions(PhaseFunctions):
    """The losses of a phase and their gradients, of which each process computes a part.

    Args:
        together: The processes.
        arguments: Of `PhaseFunctions`.
        options: Of `PhaseFunctions`.
    """

    def __init__(self, together: Processes, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._together = together
        self._kept: Tensor | None = None

    def losses(self, batch: TaskBatch, sharing: Sharing) -> TaskLosses:
        """The losses of all tasks; a process's backward pass reaches what it has computed, see `add_up`."""
        mine = self._cuts(batch)[self._together.rank]
        values = []
        with self._own_noise():
            for cut in mine:
                windows, shares = cut.of(batch)
                found = own_memory(super().losses(windows, sharing)).values
                values.append(found if shares is None else found * shares.to(found))
        if not values:  # a graph that leads to no parameter: what nobody has used must stay without a gradient
            values = [self.agent.observation_mean.new_zeros(0).requires_grad_()]
        places = [task for cut in mine for task in cut.tasks]
        return TaskLosses(_Summed.apply(torch.cat(values), places, len(batch.task_ids), self._together))

    def gradients(self, batch: TaskBatch, sharing: Sharing) -> tuple[TaskGradients, dict[str, Tensor]]:
        """See `PhaseFunctions.gradients`."""
        rows, small = self._own_gradients(batch, sharing, dense=False)
        losses, *private = self._sum_all(small.values())
        losses, ids = losses.cpu(), torch.tensor(batch.tasks)
        columns = self._columns(rows, batch)
        gradients = SpreadGradients(losses, columns, ids, self._widths, self._together)
        return gradients, dict(zip(self.private_of(sharing), private, strict=True))

    def dense_gradients(self, batches: Iterable[TaskBatch], sharing: Sharing) -> DenseGradients:
        """See `PhaseFunctions.dense_gradients`."""
        each = []
        for batch in batches:
            rows, small = self._own_gradients(batch, sharing, dense=True)
            losses = self._together.sum(next(iter(small.values())))
            spread = SpreadGradients(losses, self._columns(rows, batch), batch.task_ids, self._widths, self._together)
            each.append(DenseGradients(losses, spread.pulled_back, batch.task_ids))
        if not each:
            return super().dense_gradients((), sharing)
        losses, dense = (torch.stack([getattr(it, name) for it in each]).mean(0) for name in ("losses", "dense"))
        return DenseGradients(losses, dense, each[0].task_ids)

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Adds up what the processes have of these parameters' gradients; where nobody has one there is none."""
        known = [float(it.grad is not None) for it in parameters]
        own = [torch.zeros_like(it) if it.grad is None else it.grad for it in parameters]
        *found, numbers = self._sum_all([*own, self.agent.observation_mean.new_tensor(known)])
        for parameter, gradient, number in zip(parameters, found, numbers.tolist(), strict=True):
            parameter.grad = gradient if number else None

    def _sum_all(self, values: Iterable[Tensor]) -> list[Tensor]:
        """The sums over processes of some tensors, sent at once."""
        parts = list(values)
        total = self._together.sum(torch.cat([it.detach().reshape(-1) for it in parts]))
        flat = total.split([it.numel() for it in parts])
        return [it.view_as(part) for it, part in zip(flat, parts, strict=True)]

    def _own_gradients(self, batch: TaskBatch, sharing: Sharing, dense: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """What this process computes: rows of its share; losses `[T]` and gradients of private parameters by name."""
        mine, like = self._cuts(batch)[self._together.rank], self.agent.observation_mean
        rows, start = self._buffer(sum(len(cut.tasks) for cut in mine)), 0
        small = {"": like.new_zeros(len(batch.task_ids))}
        small |= {name: torch.zeros_like(value) for name, value in self.private_of(sharing).items()}
        with self._own_noise():
            for cut in mine:
                windows, shares = cut.of(batch)
                own = rows[start : start + len(cut.tasks)]
                start += len(cut.tasks)
                written = GradientRows(self.space, own, None if dense else sharing, torch.tensor(windows.tasks))
                losses, private = self._way(windows, sharing, written)
                factor = 1.0 if shares is None else float(shares)  # of one task
                if shares is not None:
                    own *= factor
                small[""][cut.tasks.start : cut.tasks.stop] += losses * factor
                for name, value in self._named(private, written).items():
                    small[name] += value * factor
        return rows, small

    def _columns(self, rows: Tensor, batch: TaskBatch) -> Tensor:
        """This process's columns `[T, P / N]` of the gradients of all tasks, for its rows of all columns."""
        tasks = [[task for cut in each for task in cut.tasks] for each in self._cuts(batch)]
        count = len(batch.tasks)
        if self._kept is None or len(self._kept) < count or self._kept.dtype != rows.dtype:
            self._kept = rows.new_empty(count, self._widths[self._together.rank])  # once: fresh memory is slow
        self._together.exchange(rows, tasks, self._widths, self._kept[:count])
        return self._kept[:count]

    @cached_property
    def _widths(self) -> list[int]:
        """Columns of every process."""
        count = self._together.count
        return [stop - start for start, stop in pairwise(len(self.space) * it // count for it in range(count + 1))]

    def _cuts(self, batch: TaskBatch) -> list[list[Cut]]:
        """What every process computes; nothing, if there are fewer tasks than processes whose windows stay together."""
        tasks, windows = batch.valid.shape[:2]
        windows = windows if self.phase.splits else 1
        return cuts(tasks, windows, self._together.count)

    @contextmanager
    def _own_noise(self) -> Iterator[None]:
        """Noise of dropout of this process's own; whoever calls puts the stream back."""
        on_gpu = self.agent.observation_mean.is_cuda
        number = torch.cuda.initial_seed() if on_gpu else torch.initial_seed()
        (torch.cuda if on_gpu else torch.default_generator).manual_seed(number + self._together.rank)
        yield


class _Summed(torch.autograd.Function):
    """Puts what the processes have of the losses of tasks at their places, and adds up."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, places: list[int], tasks: int, together: Processes) -> Tensor:
        """Losses `[T]` from this process's, which stand at these places."""
        ctx.places = torch.tensor(places, dtype=torch.long, device=own.device)
        return together.sum(own.new_zeros(tasks).index_add_(0, ctx.places, own.detach()))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        """This process's part."""
        return gradient[ctx.places], None, None, None
