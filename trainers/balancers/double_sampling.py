"""Weights that are learned from two independent draws of every task's windows.

The product of a gradient with itself holds the square of its noise, which draws min-norm weights to the tasks with
little noise. Products of gradients on different windows do not.

Deviation 1: a batch's windows move the parameters with the weights from before it, which are independent of all of
them. As published a third draw of windows moves them, with the weights that the first two led to. Deviation 2:
products are in units of the largest sum of a row's magnitudes, a bound of their eigenvalues: steps of size one then
converge, whatever the sizes of the gradients. MoDo takes them as they are; TorchJD's SDMGrad compares them
to the diagonal, of which noise can leave nothing, and takes steps of ten, with which its weights jump between corners.
"""

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import VANISHED, GradientAggregation, Matrix, Vector
from mtorl.trainers.balancers.solvers import onto_simplex
from mtorl.trainers.gradients import products
from mtorl.trainers.update import MultiTaskUpdate


class DoubleSampling(GradientAggregation):
    """Methods whose weights lie on the simplex and are moved by products of gradients on two halves of a batch."""

    simplex: Tensor

    needs = "gradients of single tasks on two halves of a batch (their inner products)"

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """The weight of every task; those of a batch's tasks are kept with a mean of 1/T."""
        return {"simplex": torch.full((tasks,), 1 / tasks, dtype=torch.float64)}

    @abstractmethod
    def moved(self, weights: Vector, gramian: Matrix) -> Vector:
        """The next weights.

        Args:
            weights: `[T]`, summing to one.
            gramian: `[T, T]`, products of the gradients on one half with those on the other; no sum of a
                row's magnitudes is above one.
        """

    def used(self, weights: Vector) -> Vector:
        """Weights of the task gradients in the direction, given those that are kept."""
        return weights

    def solve(self, gramian: Matrix, losses: Vector, task_ids: NDArray[np.int64]) -> Vector:
        """Moves the weights by products of gradients on two halves; need not be symmetric."""
        unit = np.abs(gramian).sum(1).max()
        weights = self.moved(self._kept(task_ids), gramian / unit)  # Deviation 2
        self.simplex.numpy()[task_ids] = weights * (len(task_ids) / len(self.simplex))
        return self.used(weights)

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """A move with the weights that earlier batches led to; then the weights move."""
        one, other = update.draws(2)
        places = update.task_ids.cpu()
        weights = torch.from_numpy(self.used(self._kept(places.numpy())))  # Deviation 1
        self.weights(products(one.pulled_back, other.pulled_back), task_ids=places)
        halves = weights.to(one.pulled_back) / 2
        return update.descend(halves @ one.pulled_back + halves @ other.pulled_back, weights)

    def _alive(self, gramian: Matrix) -> NDArray[np.bool_]:
        """A gradient's product with itself on other windows may be zero or less, but not all of its products."""
        squares = np.square(np.abs(gramian).max(1, initial=0.0))
        return squares > VANISHED * squares.max(initial=0.0)

    def _kept(self, task_ids: NDArray[np.int64]) -> Vector:
        """The weights of a batch's tasks, summing to one; equal ones where all are zero."""
        values = self.simplex.numpy()[task_ids]
        return values / values.sum() if values.sum() > 0 else np.full(len(values), 1 / len(values))


class MoDo(DoubleSampling):
    """Weights that move by small steps to those of the shortest direction, without the bias of the gradients' noise.

    Source: Chen et al., Three-Way Trade-Off in Multi-Objective Learning, 2023; TorchJD (MIT) was consulted.

    Args:
        gamma: Step size of the weights.
        rho: Strength with which they are drawn to equal ones.
    """

    def __init__(self, gamma: float = 0.1, rho: float = 0.1) -> None:
        super().__init__()
        checks.within("(0, inf)", gamma=gamma)
        checks.within("[0, inf)", rho=rho)
        self.gamma, self.rho = gamma, rho

    def moved(self, weights: Vector, gramian: Matrix) -> Vector:
        """See `DoubleSampling.moved`."""
        return onto_simplex(weights - self.gamma * (gramian @ weights + self.rho * weights))


class SDMGrad(DoubleSampling):
    """The shortest direction among those near the mean gradient, without the bias of the gradients' noise.

    Source: Xiao, Ban and Ji, Direction-oriented Multi-objective Learning, 2023; TorchJD (MIT) was consulted, for the
    momentum too.

    Args:
        pull: Weight of the mean gradient beside that of the combination.
        lr: Step size of the weights.
        momentum: Of these steps.
        iterations: Steps of the weights in a batch.
    """

    def __init__(self, pull: float = 0.3, lr: float = 1.0, momentum: float = 0.5, iterations: int = 20) -> None:
        super().__init__()
        checks.within("[0, inf)", pull=pull)
        checks.within("(0, inf)", lr=lr)
        checks.within("[0, 1)", momentum=momentum)
        checks.at_least(1, iterations=iterations)
        self.pull, self.lr, self.momentum, self.iterations = pull, lr, momentum, iterations

    def moved(self, weights: Vector, gramian: Matrix) -> Vector:
        """See `DoubleSampling.moved`."""
        speed = np.zeros_like(weights)
        for _ in range(self.iterations):
            speed = self.momentum * speed + gramian @ (weights + self.pull / len(weights))
            weights = onto_simplex(weights - self.lr * speed)
        return weights

    def used(self, weights: Vector) -> Vector:
        """See `DoubleSampling.used`."""
        return (weights + self.pull / len(weights)) / (1 + self.pull)
