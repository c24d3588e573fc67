"""Pareto manifold learning: networks at the corners of a simplex, of which every point between them is one too."""

import copy
import math
from itertools import product
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mtorl import InputError, checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.schema import State
from mtorl.trainers.sharing.base import Mixture, Point
from mtorl.trainers.sharing.task_parameters import TaskParameters, Tensors

Direction = Literal["monotone", "released"]
LEAST_SHARE = 1e-6
EDGE, TRIANGLE = 10, 5
"""Steps along each side of the simplex of two tasks, and of three, in `ParetoManifold.points`."""


class ParetoManifold(TaskParameters):
    """Every task has a member of an ensemble; mixtures of their weights serve mixtures of the tasks.

    At a point `a` of the simplex all tasks compute with `theta(a) = sum_i a_i theta_i`. A step draws some points and
    descends `sum_points sum_i a_i L_i(theta(a))`, so that a trained network has one for every trade-off between tasks.
    Acting in task i, it is played at `(1 - vertex_share) / T + vertex_share e_i`.

    With low rank, `theta(a) = theta_0 + sum_i a_i B_i A_i`, where the agent itself holds theta_0, which all tasks
    train; otherwise the agent holds the mean of the members. Members of rank 8 cost little beside the network, and
    all of the rest learns from every task: with full ones each sees a T-th of the gradient. With one task there is
    nothing to mix.

    Balancers that weight losses are the inner method: their weights are multiplied with the shares.

    Source: Dimitriadis, Frossard and Fleuret, Pareto Manifold Learning: Tackling Multiple Tasks via Ensembles of
    Single-Task Models, 2023, sections 3 and 4; the released code (nik-dim/pamal, MIT) was consulted.

    Deviations from the paper:
    1. Members of low rank by default.
    2. Points lie between the tasks of the batch: the members of others stay where they are.
    3. Full members begin with the agent's initial values in orders of their own: other draws from the same
       distributions, for any agent.
    4. The regulariser wants losses to fall where their task has more share; the released code wants the opposite.

    Args:
        rank: Of the members' matrices; None: they are full.
        tensors: Which tensors have members: the weight matrices that masks may touch (maskable), or all shared ones of
            the phase (of low rank: all matrices).
        samples: Points in a step.
        concentration: Of the Dirichlet distribution of the points: 1 is uniform, large values stay in the middle.
        regularisation: Weight of the regulariser that orders the losses of a step's points.
        temperature: Of the regulariser.
        direction: Which order it wants: losses that fall as their task's share rises (monotone), or the opposite
            (released).
        vertex_share: Where between the middle (0) and its own corner (1) a task is played.
    """

    def __init__(
        self,
        rank: int | None = 8,
        tensors: Tensors = "maskable",
        samples: int = 2,
        concentration: float = 1.0,
        regularisation: float = 0.0,
        temperature: float = 1.0,
        direction: Direction = "monotone",
        vertex_share: float = 1.0,
    ) -> None:
        super().__init__(tensors)
        checks.at_least(1, rank=rank, samples=samples)
        checks.within("(0, inf)", concentration=concentration, temperature=temperature)
        checks.within("[0, inf)", regularisation=regularisation)
        checks.within("[0, 1]", vertex_share=vertex_share)
        checks.one_of("direction", direction, Direction)
        self.rank, self.samples, self.concentration = rank, samples, concentration
        self.regularisation, self.temperature, self.direction = regularisation, temperature, direction
        self.vertex_share = vertex_share
        self._point: Point | None = None

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """Members of low rank begin at nothing, full ones at draws of their own."""
        self._tasks, self._generator = tasks, generator
        self.own = tuple(self.chosen(space, matrices=self.rank is not None))
        self.uniform = tasks == 1
        if self.uniform:
            self.own = ()
            return
        values = space.values()
        initial = [values[name].detach() for name in self.own]
        if self.rank is None:
            self.members = nn.ParameterList([nn.Parameter(self._redrawn(value)) for value in initial])
            for number, value in enumerate(initial):
                self.register_buffer(f"centre_{number}", value.clone())
        else:
            self.ups = nn.ParameterList([nn.Parameter(it.new_zeros(tasks, len(it), self.rank)) for it in initial])
            self.downs = nn.ParameterList([nn.Parameter(self._drawn(value, self.rank)) for value in initial])

    def _redrawn(self, value: Tensor) -> Tensor:
        """A value `[T, ...]` for every task: as it is for the first one, in another order for each other."""
        flat = value.flatten()
        orders = [torch.randperm(len(flat), generator=self._generator).to(flat.device) for _ in range(self._tasks - 1)]
        return torch.stack([flat, *[flat[order] for order in orders]]).view(-1, *value.shape)  # Deviation 3

    def _drawn(self, value: Tensor, rank: int) -> Tensor:
        """Right factors `[T, rank, inputs]`."""
        inputs = value.shape[1]
        return ((2 * torch.rand(self._tasks, rank, inputs, generator=self._generator) - 1) * inputs**-0.5).to(value)

    def size(self, space: ParameterSpace, tasks: int) -> int:
        """See `Sharing.size`."""
        shapes = self.chosen(space, matrices=self.rank is not None).values()
        each = [math.prod(shape) if self.rank is None else self.rank * sum(shape) for shape in shapes]
        return tasks * sum(each) if tasks > 1 else 0

    def shares(self, task: int | None) -> list[float]:
        """Where a task is played, `[T]`; the middle if it is not known."""
        if self._point is not None:
            return list(self._point)
        middle = (1 - self.vertex_share if task is not None else 1.0) / self._tasks
        return [middle + self.vertex_share * (place == task) for place in range(self._tasks)]

    def effective(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The mixture where the task is played."""
        return self.mixed(parameters, self.shares(task))

    def following(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """Full members: as far from the mixture as what follows the agent is from the agent."""
        found = self.effective(parameters, task)
        for number, name in enumerate(self.own if self.rank is None else ()):
            if name in parameters:
                found[name] = found[name] + (parameters[name] - self.get_buffer(f"centre_{number}"))
        return found

    def mixed(self, parameters: dict[str, Tensor], shares: list[float]) -> dict[str, Tensor]:
        """The parameters at a point `[T]` of the simplex."""
        found = dict(parameters)
        for number, name in enumerate(self.own):
            if name in parameters:
                found[name] = self._mixed(number, parameters[name], shares)
        return found

    def _mixed(self, number: int, value: Tensor, shares: list[float]) -> Tensor:
        places, weights = self._present(shares, value)
        if self.rank is None:
            members = self.members[number]
            return torch.einsum("t,t...->...", weights, members if places is None else members[places])
        up, down = self.ups[number], self.downs[number]
        if places is not None:
            up, down = up[places], down[places]
        left = (up * weights[:, None, None]).transpose(0, 1).flatten(1)  # t o r -> o (t r)
        return value.addmm(left, down.flatten(0, 1))  # Deviation 1

    def _present(self, shares: list[float], like: Tensor) -> tuple[list[int] | None, Tensor]:
        """Places of the members that a point mixes, None if these are all, and their weights."""
        places = [place for place, share in enumerate(shares) if share]
        weights = torch.tensor([shares[place] for place in places], dtype=like.dtype, device=like.device)
        return None if len(places) == len(shares) else places, weights

    def stacked_pull_back(self, gradients: dict[str, Tensor], task_ids: Tensor) -> dict[str, Tensor]:
        """Of low rank: the gradients themselves; otherwise zero for what has members."""
        for name in self.own if self.rank is None else ():
            gradients[name].zero_()
        return gradients

    def add_own_gradients(self, totals: dict[str, Tensor], gradients: dict[str, Tensor], task: int) -> None:
        """A member's gradient is the mixture's, times its share."""
        shares = [(place, share) for place, share in enumerate(self.shares(task)) if share]
        for (number, name), (place, share) in product(enumerate(self.own), shares):
            gradient = share * gradients[name]
            if self.rank is None:
                totals[f"members.{number}"][place] += gradient
            else:
                totals[f"ups.{number}"][place] += gradient @ self.downs[number][place].T
                totals[f"downs.{number}"][place] += self.ups[number][place].T @ gradient

    @torch.no_grad()
    def after_step(self, parameters: dict[str, Tensor], task_ids: Tensor) -> None:
        """Full members: the agent holds their mean."""
        for number, name in enumerate(self.own if self.rank is None else ()):
            mean = self.members[number].mean(0)
            self.get_buffer(f"centre_{number}").copy_(mean)
            parameters[name].copy_(mean)

    def mixture(self, task_ids: Tensor) -> Mixture | None:
        """Points that are drawn now; what a balancer weights there, `objectives` says."""
        if self.uniform:
            return None
        drawn = self.draw(task_ids.cpu())
        present = drawn[:, task_ids.cpu()]
        points = [self.at(tuple(row)) for row in drawn.tolist()]
        return Mixture(points, lambda losses: self.objectives(losses, present.to(losses)))

    def draw(self, task_ids: Tensor) -> Tensor:
        """Points `[samples, T]` between some tasks; one is all there is of a single task."""
        count, points = len(task_ids), torch.zeros(self.samples, self._tasks, dtype=torch.float64)
        if count == 1:
            points = points[:1]
        seed = int(torch.randint(1 << 62, (), generator=self._generator))  # torch draws no Dirichlet with a generator
        draws = np.random.default_rng(seed).dirichlet(np.full(count, self.concentration), len(points))
        draws = np.maximum(draws, LEAST_SHARE)
        points[:, task_ids] = torch.from_numpy(draws / draws.sum(1, keepdims=True))  # Deviation 2
        return points

    def objectives(self, losses: Tensor, shares: Tensor) -> Tensor:
        """What a balancer weights, one for each task of a batch.

        Their values are the means over points; their gradients are those of the share-weighted sums, times the number
        of tasks, for balancers whose weights are 1/T if they are equal.

        Args:
            losses: `[points, T]`.
            shares: `[points, T]`.
        """
        weighted = (shares * losses).sum(0)
        penalty = self.regularisation * disorder(losses, shares, self.temperature, self.direction)
        if bool(penalty.sum() < weighted.sum()):  # as the released code: it never outweighs the losses
            weighted = weighted + penalty
        scaled = len(weighted) * weighted
        return losses.detach().mean(0) + (scaled - scaled.detach())

    def without_task(self, parameters: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The middle of the simplex."""
        return [self.mixed(parameters, self.shares(None))]

    def points(self) -> list[Point]:
        """Along the edge of two tasks, over the triangle of three; of more, the corners and the middle."""
        if self._tasks == 1:
            return []
        if self._tasks > 3:
            corners = [tuple(float(place == task) for place in range(self._tasks)) for task in range(self._tasks)]
            return [*corners, (1 / self._tasks,) * self._tasks]
        parts = EDGE if self._tasks == 2 else TRIANGLE
        counts = product(range(parts, -1, -1), repeat=self._tasks)
        return [tuple(part / parts for part in each) for each in counts if sum(each) == parts]

    def at(self, point: Point) -> "ParetoManifold":
        """See `Sharing.at`.

        Raises:
            InputError: The shares are not one per task, none negative, that sum to one.
        """
        if len(point) != self._tasks or min(point) < 0 or abs(sum(point) - 1) > 1e-6:
            raise InputError(f"the point is {list(point)}; expected {self._tasks} shares, none negative, sum 1.")
        found = copy.copy(self)  # members are the same, and learn
        found._point, found.common = point, True
        return found

    def get_extra_state(self) -> State:
        """Where the draws stand."""
        return {"generator": self._generator.get_state()}

    def set_extra_state(self, state: State) -> None:
        """Continues the draws from `get_extra_state`."""
        self._generator.set_state(state["generator"].cpu())


def disorder(losses: Tensor, shares: Tensor, temperature: float, direction: Direction) -> Tensor:
    """How much the losses of every task are out of order `[T]`: log mean exp of the differences that are.

    Args:
        losses: `[points, T]`.
        shares: `[points, T]`, of each task at the points: neighbours in their order are compared.
        temperature: Factor of the differences.
        direction: `monotone` has losses that fall as shares rise, `released` the opposite.
    """
    if len(losses) == 1:
        return torch.zeros_like(losses[0])
    ordered = losses.gather(0, shares.argsort(dim=0, descending=True, stable=True))
    rises = ordered[1:] - ordered[:-1]  # from more share to less
    wrong = (rises if direction == "released" else -rises).relu()  # Deviation 4
    return (temperature * wrong).exp().mean(0).log()
