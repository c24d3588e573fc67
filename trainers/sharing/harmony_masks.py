"""Harmony masks (HarmoDT). Written from the papers.

Deviations:
1. Gradients are taken where the task computes, also at weights that its mask leaves out: what a weight would do there
   is known when it is chosen to come back. The released code sees zeros there (see `HarmonyMasksReleased`).
2. Gradients are scaled to norm one by default, so that lambda means the same for every task and at every time, and
   importances to a sum of one, so that it means the same for all three.
3. How many weights move is a share of the mask's zeros by default. The published number, 100 of millions, changes a
   thousandth of a mask in a short run.
"""

from typing import Literal

import torch
from torch import Tensor

from mtorl import checks
from mtorl.trainers.gradients import DenseGradients
from mtorl.trainers.sharing.densities import Distribution
from mtorl.trainers.sharing.masks import MovingMasks, Place, Scope, SwapSchedule

Importance = Literal["fisher", "magnitude", "gradient"]


class HarmonyMasks(MovingMasks):
    """Every task drops weights that matter little to it and on which it conflicts with the others.

    A weight's agreement is its gradient for the task times the mean gradient of all tasks. A mask leaves out the
    weights with the smallest `agreement_weight * agreement + importance`, and takes in those with the largest
    agreement.

    Source: Hu et al., HarmoDT: Harmony Multi-Task Decision Transformer for Offline Reinforcement Learning, 2024.

    Args:
        sparsity: Share of the maskable weights that a mask leaves out, in [0, 1).
        distribution: Over the matrices at first: `erk` (small and narrow matrices keep more) or `uniform`.
        importance: Of a weight to a task: `fisher` (squared gradient), `magnitude` (of the weight) or `gradient` (its
            magnitude).
        agreement_weight: The paper's lambda.
        interval: Training steps between two changes.
        swap_fraction: Share of a mask's zeros that move in a change, at the most; see `schedule`.
        swap_count: The same as a number of weights, instead of the share.
        schedule: How many of these move as training goes on: `hump` (none, all at half time, none), `decay` (all to
            none along a cosine) or `constant`.
        scope: Compare scores over the whole network, or within each matrix, whose density then never changes.
        probes: Batches whose mean gradients the scores are made of.
        normalise: Scale gradients and importances; see above.
    """

    def __init__(
        self,
        sparsity: float = 0.2,
        distribution: Distribution = "erk",
        importance: Importance = "fisher",
        agreement_weight: float = 10.0,
        interval: int = 100,
        swap_fraction: float = 0.05,  # Deviation 3
        swap_count: int | None = None,
        schedule: SwapSchedule = "hump",
        scope: Scope = "global",
        probes: int = 4,
        normalise: bool = True,
    ) -> None:
        super().__init__(sparsity, distribution, interval, swap_fraction, swap_count, schedule, scope, probes)
        checks.one_of("importance", importance, Importance)
        checks.at_least(1, probes=probes)
        checks.within("[0, inf)", agreement_weight=agreement_weight)
        self.importance, self.agreement_weight, self.normalise = importance, agreement_weight, normalise

    def prepare(self, parameters: dict[str, Tensor], gradients: DenseGradients) -> None:
        """The mean gradient, and by what gradients and importances are to be scaled."""
        scale = self.scales(gradients.dense)  # Deviation 1: dense, not multiplied by the masks
        means = [scale @ gradients.dense[:, place.flat] / len(scale) for place in self.places.values()]
        self._mean = torch.cat(means)
        self._rows, self._scale = self.by_rows(gradients.dense, scale)
        self._shares = torch.ones_like(self._scale)  # Deviation 2, below: importances have a sum of one
        if self.importance == "gradient" and self.normalise:
            sums = [self._rows[:, place.flat].norm(1, dim=1) for place in self.places.values()]
            total = self._scale * torch.stack(sums).sum(0)
            self._shares = torch.where(total > 0, 1 / total, 0.0)
        if self.importance == "magnitude":
            self._magnitude = torch.cat([parameters[name].detach().flatten() for name in self.places]).abs()
            if self.normalise:
                self._magnitude /= self._magnitude.sum()

    def scales(self, rows: Tensor) -> Tensor:
        """By what each of these gradients `[rows, P]` is multiplied to have length one on the maskable weights."""
        if not self.normalise:  # Deviation 2
            return rows.new_ones(len(rows))
        norms = torch.stack([rows[:, place.flat].norm(dim=1) for place in self.places.values()])
        total = norms.double().square().sum(0).sqrt()
        return torch.where(total > 0, 1 / total, 0.0).to(rows)

    def by_rows(self, dense: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Gradients of the masks and their scales, from those of the tasks: the same, as every task has a mask."""
        return dense, scale

    def forget(self) -> None:
        """See `MovingMasks.forget`."""
        for name in ("_rows", "_scale", "_shares", "_mean", "_magnitude"):
            vars(self).pop(name, None)

    def scores(self, row: int, place: Place) -> tuple[Tensor, Tensor]:
        """See `MovingMasks.scores`."""
        gradient = self._rows[row, place.flat] * self._scale[row]
        agreement = gradient * self._mean[place.mine]
        if self.importance == "fisher":
            importance = gradient.square_()
        elif self.importance == "gradient":
            importance = gradient.abs_().mul_(self._shares[row])
        else:
            importance = self._magnitude[place.mine]
        return torch.add(importance, agreement, alpha=self.agreement_weight), agreement
