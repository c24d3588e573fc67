"""Affinities of tasks from what training on sets of them is predicted to do (Li et al., 2024).

Deviations from the paper:
1. Losses are squared errors of actions, so that the best move for a set of tasks is the solution of a linear system,
   exact but for the linearisation, instead of a logistic regression.
2. The projection is sparse and structured (`Sketch`), not a matrix of random numbers.
3. Moves are kept short, where outputs are linear: half of them at most so long as `limit` says.
4. Affinities are standardised for each task, and made symmetric.
"""

import math
import warnings
from collections.abc import Iterator
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl import InputError, checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.sampler import TaskSampler
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers.base import TaskGrouper, check_count, check_shared
from mtorl.trainers.groupers.clusters import grouping
from mtorl.trainers.groupers.linearised import Linearisation, LinearisedLosses
from mtorl.trainers.seeding import torch_stream
from mtorl.trainers.sharing import Sharing

Moved = Literal["last_half", "matrices", "all"]


class GradTAG(TaskGrouper):
    """Groups tasks whose joint training is predicted to help them: fine-tuning on many sets, by linear algebra.

    Gradients of the network's outputs give, to first order, the losses of all tasks after training on any set of them.
    Two tasks are close if the one does well after training on sets that hold the other. For agents that learn
    actions by their squared error.

    Source: Li et al., Scalable Fine-tuning from Multiple Data Sources: A First-Order Approximation Approach (Grad-TAG),
    2024.

    Args:
        windows: Of each task, whose gradients are used; at least.
        dimension: Coordinates that gradients are projected to.
        subsets: Sets of tasks; all of them where there are no more.
        subset_size: Tasks in each; half of the tasks at most, and at least two.
        moved: Which of the shared parameters move: the weight matrices of the last half of the layers, all weight
            matrices, or all.
        ridge: What a move costs for each task; chosen so that half of the moves are within `limit` by default.
        limit: Longest move that is trusted, as a share of the length of what moves.
    """

    def __init__(
        self,
        windows: int = 512,
        dimension: int = 400,
        subsets: int = 2000,
        subset_size: int = 10,
        moved: Moved = "last_half",
        ridge: float | None = None,
        limit: float = 0.01,
    ) -> None:
        checks.at_least(1, windows=windows, dimension=dimension, subsets=subsets)
        checks.at_least(2, subset_size=subset_size)
        checks.one_of("moved", moved, Moved)
        checks.within("(0, inf)", ridge=ridge, limit=limit)
        self.windows, self.dimension, self.moved, self.ridge, self.limit = windows, dimension, moved, ridge, limit
        self.subsets, self.subset_size = subsets, subset_size

    def fit(
        self, functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, groups: int, seed: int = 0
    ) -> Grouping:
        """See `TaskGrouper.fit`."""
        names = functions.agent.spec.task_names
        check_count(groups, len(names))
        losses = self.linearise(functions, sharing, sampler, seed)
        subsets = self.draw(len(names), torch_stream(seed, "subsets"))
        ridge = self.ridge or losses.choose_ridge(subsets, self.limit)  # Deviation 3
        moves = losses.moves(subsets, ridge)  # Deviation 1
        length = float(losses.lengths(moves).median())
        if length > 1.1 * self.limit:  # of some sets it is exact
            warnings.warn(
                f"half of the moves are longer than {length:.1%} of the parameters' length; beyond {self.limit:.1%} "
                "outputs are not linear, and predicted losses not to be trusted. Raise --method.ridge.",
                stacklevel=2,
            )
        found = affinity(losses.after(moves).numpy(), subsets.numpy())
        method = (
            f"GradTAG({len(subsets)} sets of {int(subsets[0].sum())} tasks, ridge={ridge:.3g}, moves of {length:.2%})"
        )
        return grouping(found, names, groups, seed, method)

    def linearise(
        self, functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, seed: int = 0
    ) -> LinearisedLosses:
        """What predicts the losses of all tasks after training on any set of them.

        Args:
            functions: Losses of one phase of an agent that has trained a little.
            sharing: With which parameters its tasks compute.
            sampler: Draws windows of all tasks.
            seed: Of the signs.

        Raises:
            InputError: Tasks share nothing that is trained, or the loss is no squared error.
        """
        check_shared(functions)
        names = moved_names(functions.space, self.moved)
        generator = torch_stream(seed, "projection")
        linearisation = Linearisation(functions, sharing, names, self.dimension, generator)  # Deviation 2
        like, training = functions.agent.observation_mean, functions.agent.training
        functions.agent.eval()  # without dropout: as it acts
        try:
            losses = linearisation.gather(_batches(sampler, self.windows, like))
        finally:
            functions.agent.train(training)
        if not all(bool(it.isfinite().all()) for it in (losses.curvature, losses.slope, losses.losses)):
            raise InputError("gradients are not finite; expected an agent whose losses are. Train it again.")
        return losses

    def draw(self, tasks: int, generator: torch.Generator) -> Tensor:
        """Sets of tasks, bool `[m, T]`; every two tasks are together in at least one."""
        size = min(self.subset_size, max(tasks // 2, 2), tasks)
        if math.comb(tasks, size) <= self.subsets:
            chosen = torch.tensor(list(combinations(range(tasks), size)))
        else:
            ranks = torch.rand(self.subsets, tasks, generator=generator)
            chosen = ranks.argsort(1)[:, :size]
        found = torch.zeros(len(chosen), tasks, dtype=torch.bool).scatter_(1, chosen, True)
        together = found.double().T @ found.double()
        missing = (together == 0).nonzero()
        more = torch.zeros(len(missing), tasks, dtype=torch.bool).scatter_(1, missing, True)
        return torch.cat([found, more])


def _batches(sampler: TaskSampler, windows: int, like: Tensor) -> Iterator[TaskBatch]:
    """Batches of all tasks until there are that many windows of each."""
    drawn = 0
    while drawn < windows:
        batch = sampler.draw().to(like.device, like.dtype)
        drawn += batch.valid.shape[1]
        yield batch


def moved_names(space: ParameterSpace, moved: Moved) -> list[str]:
    """The shared parameters that move; all of them where there are no weight matrices among layers."""
    matrices = [name for name, matrix in zip(space.names, space.maskable, strict=True) if matrix]
    if moved == "all" or not matrices:
        return list(space.names)
    return matrices[len(matrices) // 2 :] if moved == "last_half" else matrices


def affinity(losses: NDArray[np.float64], subsets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How well tasks do after training on sets with each other, `[T, T]`: symmetric, in standard deviations.

    Args:
        losses: `[m, T]`, of all tasks after training on each set.
        subsets: `[m, T]`, the sets.
    """
    inside = subsets.astype(float)
    mean = -(inside * losses).T @ inside / np.maximum(inside.T @ inside, 1)
    others = ~np.eye(len(mean), dtype=bool)
    if others.any():  # Deviation 4
        rows = mean[others].reshape(len(mean), -1)
        spread = rows.std(1, keepdims=True)
        centred = rows - rows.mean(1, keepdims=True)
        flat = spread <= 1e-12 * np.abs(rows).max(1, keepdims=True)
        mean[others] = np.where(flat, 0.0, centred / np.where(flat, 1.0, spread)).ravel()
    symmetric = (mean + mean.T) / 2
    np.fill_diagonal(symmetric, symmetric[others].max() if others.any() else 1.0)  # the same for all tasks
    return symmetric
