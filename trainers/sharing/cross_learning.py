"""Cross-learning: parameters for every task that stay close to each other."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from mtorl import checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.gradients import CACHED, gramian
from mtorl.trainers.sharing.balls import Array, best_centre, distances, weighted_centre, within
from mtorl.trainers.sharing.task_parameters import TaskParameters, Tensors

Variant = Literal["primal_dual", "projected"]


class CrossLearning(TaskParameters):
    """Every task has its own values of the chosen tensors, in a ball around a centre that they choose together.

    `min sum_t L_t(theta_t)` so that `||theta_t - c|| <= epsilon` in every tensor, with c free. The centre is a
    combination of the theta_t whose shares, and all distances, follow from their inner products `[T, T]`. The agent
    itself holds the centre: it is what acts where the task is not known.

    Balancers see the gradients of what is still shared; a task's own values descend its own loss, as heads do. After a
    step all tasks are brought back to the ball, also those that were not in the batch.

    Source: Cervino et al., Multi-Task Reinforcement Learning in Reproducing Kernel Hilbert Spaces via Cross-Learning,
    2020 (abstract; the formulas are derived from it).

    Deviations from the paper:
    1. A ball for every tensor, by default with a radius in proportion to its centre's norm.
    2. `primal_dual`: a step on the multipliers' term is taken after the optimizer's, and exactly: `theta_t = (z_t +
       mu_t c) / (1 + mu_t)`. Adam would undo its size. Multipliers grow with distances as multiples of the radius.

    Args:
        epsilon: Radius of the balls: 0 is one model for all tasks, infinity one for each.
        relative: Measure it in norms of the tensor's centre, not absolutely.
        tensors: Which tensors: all shared ones of the phase, or the weight matrices that masks may touch (maskable; of
            transformers those of the blocks).
        variant: How tasks are held in the ball: by multipliers that grow while they are outside (primal_dual, with a
            projection now and then), or by the nearest point of it after each step (projected).
        rate: Of the multipliers' growth.
        slack: Share of the radius by which the projections of primal_dual let tasks be outside.
        project_every: Steps between these.

    Attributes:
        values: Of every tensor in `own`, `[T, ...]`.
        multipliers: `[tensors, T]`, float64.
    """

    multipliers: Tensor
    steps: Tensor

    def __init__(
        self,
        epsilon: float = 0.1,
        relative: bool = True,
        tensors: Tensors = "all",
        variant: Variant = "primal_dual",
        rate: float = 0.1,
        slack: float = 0.1,
        project_every: int = 100,
    ) -> None:
        super().__init__(tensors)
        checks.within("[0, inf]", epsilon=epsilon)
        checks.within("(0, inf)", rate=rate)
        checks.within("[0, inf)", slack=slack)
        checks.at_least(1, project_every=project_every)
        checks.one_of("variant", variant, Variant)
        self.epsilon, self.relative, self.variant = epsilon, relative, variant
        self.rate, self.slack, self.project_every = rate, slack, project_every

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """All tasks begin with the agent's values."""
        self.own = tuple(self.chosen(space))
        initial = space.values()
        each = [initial[name].detach() for name in self.own]
        self.values = nn.ParameterList([nn.Parameter(it.expand(tasks, *it.shape).clone()) for it in each])
        for number, value in enumerate(each):
            self.register_buffer(f"centre_{number}", value.clone())
        self.register_buffer("multipliers", torch.zeros(len(each), tasks, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def size(self, space: ParameterSpace, tasks: int) -> int:
        """See `Sharing.size`."""
        return tasks * sum(shape.numel() for shape in self.chosen(space).values())

    def _centres(self) -> list[Tensor]:
        return [self.get_buffer(f"centre_{number}") for number in range(len(self.own))]

    def effective(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """The task's own values."""
        return parameters | {name: value[task] for name, value, _ in self._held(parameters)}

    def following(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        """As far from the task's own values as what follows the agent is from the agent."""
        held = self._held(parameters)
        return parameters | {name: value[task] + (parameters[name] - centre) for name, value, centre in held}

    def effective_each(self, parameters: dict[str, Tensor], task_ids: Tensor) -> list[dict[str, Tensor]]:
        """See `Sharing.effective_each`; one backward pass through a tensor fills it once, not once per task."""
        found = [dict(parameters) for _ in task_ids]
        for name, value, _ in self._held(parameters):
            rows = value.unbind()
            for mine, task in zip(found, task_ids.tolist(), strict=True):
                mine[name] = rows[task]
        return found

    def _held(self, parameters: dict[str, Tensor]) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Names, values `[T, ...]` and centres of what is held of some parameters."""
        rows = zip(self.own, self.values, self._centres(), strict=True)
        return (row for row in rows if row[0] in parameters)

    def stacked_pull_back(self, gradients: dict[str, Tensor], task_ids: Tensor) -> dict[str, Tensor]:
        """Zero for what tasks have values of their own for."""
        for name in self.own:
            gradients[name].zero_()
        return gradients

    def add_own_gradients(self, totals: dict[str, Tensor], gradients: dict[str, Tensor], task: int) -> None:
        """The task's row is its own."""
        for number, name in enumerate(self.own):
            totals[f"values.{number}"][task] += gradients[name]

    @torch.no_grad()
    def after_step(self, parameters: dict[str, Tensor], task_ids: Tensor) -> None:
        """Brings all tasks back to the ball, and the centre to the agent."""
        flat = [value.detach().flatten(1) for value in self.values]
        products = np.stack([gramian(rows).numpy() for rows in flat])
        shares, factors = self._held_in(products, self._radii())
        for number, (rows, centre) in enumerate(zip(flat, self._centres(), strict=True)):
            share, factor = (torch.from_numpy(it[number]).to(rows) for it in (shares, factors))
            mixed = torch.diag(factor) + torch.outer(1 - factor, share)  # t to f z_t + (1 - f) c
            middle = centre.view(-1)
            for part, its_middle in zip(rows.split(CACHED, 1), middle.split(CACHED), strict=True):
                its_middle.copy_(share @ part)
                part.copy_(mixed @ part)
            parameters[self.own[number]].view(-1).copy_(middle)

    def _radii(self) -> Array:
        """`[tensors]`, by the centres before the step."""  # Deviation 1
        if not self.relative:
            return np.full(len(self.own), self.epsilon)
        norms = np.array([float(centre.norm()) for centre in self._centres()])
        return np.multiply(self.epsilon, norms, out=np.full_like(norms, np.inf), where=np.isfinite(self.epsilon))

    def _held_in(self, products: Array, radii: Array) -> tuple[Array, Array]:
        """Shares of the centres and factors of the ways from these `[tensors, T]`; the multipliers grow."""
        self.steps += 1
        if self.variant == "projected":
            shares = best_centre(products, radii)
            return shares, within(distances(products, shares), radii)
        multipliers = self.multipliers.cpu().numpy()
        shares = weighted_centre(multipliers)
        factors = 1 / (1 + multipliers)  # Deviation 2
        away = distances(products, shares) * factors
        positive = np.where(radii > 0, radii, 1.0)[:, None]
        grown = multipliers + self.rate * (np.square(away / positive) - 1)
        self.multipliers.copy_(torch.from_numpy(np.maximum(np.where(radii[:, None] > 0, grown, 0.0), 0)))
        most = radii * (1 + self.slack)
        factors[radii == 0] = 0
        if int(self.steps) % self.project_every == 0:
            factors *= within(away, most)
        return shares, factors
