"""Soft masks (SoCo-DT). Reconstructed from the abstract, which gives no formula: all of these are our own.

Deviations:
1. A weight's conflict is HarmoDT's agreement, the task's gradient times the mean gradient of all tasks, where it is
   negative; gradients have length one before, so that no task is louder than others.
2. A weight conflicts too much where its agreement is below Tukey's lower fence of the task's own agreements, so many
   interquartile ranges below the first quartile. How many weights that are is a matter of their distribution: each
   task has its own sparsity. Quartiles are those of an even sample of the weights that have a gradient at all.
3. The value that such a weight is to have is its importance (Fisher, the squared gradient) over the sum of importance
   and conflict; that of all others is 1.
4. Values begin at 1 and go a part of the way to that in each change: one batch does not decide.
5. The fence comes nearer along half a cosine until the peak, where most is held back, and leaves again along a longer
   half, not to where it began: what tasks compute with hardly changes as training ends.
6. Where the task is hidden, weights are multiplied by the mean of all masks.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mtorl import InputError, checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.gradients import DenseGradients
from mtorl.trainers.sharing.weight_masks import WeightMasks

SAMPLE = 1 << 16
"""Scores, about, of which quartiles are taken."""


class SoftMasks(WeightMasks):
    """Every task computes with a share of each weight: less of those that conflict with other tasks and matter little.

    Tasks whose gradients conflict much hold back more than others. Values take four bytes for each task and weight.

    Source: Wang et al., Soft Conflict-Resolution Decision Transformer for Offline Multi-Task Reinforcement Learning,
    2025 (abstract).

    Args:
        conflict_weight: Of conflict against importance in a value, as HarmoDT's lambda; 0: nothing is held back.
        fences: How many interquartile ranges below the first quartile a weight's agreement must lie: as training
            begins, at the peak, and as it ends.
        peak: Share of training after which the fence is nearest.
        rate: Part of the way that values go in a change.
        interval: Training steps between two changes.
        probes: Batches whose mean gradients the scores are made of.
    """

    moved = "of the weights are held back, by their shares"

    def __init__(
        self,
        conflict_weight: float = 10.0,
        fences: Sequence[float] = (3.0, 0.5, 1.5),
        peak: float = 0.3,
        rate: float = 0.2,
        interval: int = 100,
        probes: int = 4,
    ) -> None:
        super().__init__()
        if len(fences) != 3:
            raise InputError(f"fences is {list(fences)}; expected three numbers: first, at the peak, last.")
        for number in fences:
            checks.within("[0, inf)", fences=number)
        checks.within("[0, inf)", conflict_weight=conflict_weight)
        checks.within("(0, 1)", peak=peak)
        checks.within("(0, 1]", rate=rate)
        checks.at_least(1, interval=interval, probes=probes)
        self.conflict_weight, self.fences, self.peak = conflict_weight, tuple(fences), peak
        self.rate, self.interval, self.probes = rate, interval, probes

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """All values are 1."""
        self.register_buffer("masks", torch.ones(tasks, self.locate(space)))

    def due(self, index: int) -> bool:
        """After every `interval` steps."""
        return (index + 1) % self.interval == 0

    def fence(self, progress: float) -> float:
        """Interquartile ranges below the first quartile, at that share of training."""
        first, nearest, last = self.fences
        if progress < self.peak:  # Deviation 5
            return nearest + (first - nearest) * 0.5 * (1 + math.cos(math.pi * progress / self.peak))
        return nearest + (last - nearest) * 0.5 * (1 - math.cos(math.pi * (progress - self.peak) / (1 - self.peak)))

    def update(self, parameters: dict[str, Tensor], gradients: DenseGradients, progress: float) -> dict[str, float]:
        """Moves the values of all masks.

        Returns:
            `conflicting`: share of weights beyond the fence, mean of the tasks; `changed`: see `changed`; `least` and
            `most`: share that the task holds back which does so least and most.
        """
        parts = [gradients.dense[:, place.flat] for place in self.places.values()]  # views: rows are large
        norms = torch.stack([part.norm(dim=1) for part in parts]).norm(dim=0)
        scale = torch.where(norms > 0, 1 / norms, 0.0)  # Deviation 1
        mean, beyond = torch.cat([scale @ part / len(scale) for part in parts]), 0.0
        for row, mask in enumerate(self.masks):
            own = torch.cat([part[row] for part in parts]) * scale[row]
            agreement = own * mean
            conflict = agreement < min(lower_fence(agreement, self.fence(progress)), 0.0)  # Deviation 2
            share = own.abs() / (own.abs() + self.conflict_weight * mean.abs())  # Deviation 3: over |own|, both of them
            mask.lerp_(torch.where(conflict, share, 1.0).to(mask), self.rate)  # Deviation 4
            beyond += float(conflict.double().mean()) / len(self.masks)
        held = 1 - self.masks.double().mean(1)
        return {
            "conflicting": beyond,
            "changed": self.changed(),
            "least": float(held.min()),
            "most": float(held.max()),
        }

    def changed(self) -> float:
        """Mean of what is held back: of one less the values."""
        return float(1 - self.masks.double().mean())

    def without_task(self, parameters: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The weights times the mean mask."""
        return [self._with(parameters, self.masks.mean(0))]  # Deviation 6


def lower_fence(scores: Tensor, ranges: float) -> float:
    """So many interquartile ranges below the first quartile of those scores `[M]` that are not zero (Tukey)."""
    there = scores[scores != 0]
    if not len(there):
        return -math.inf
    sample = there[:: max(len(there) // SAMPLE, 1)]
    first, third = torch.quantile(sample, sample.new_tensor([0.25, 0.75])).tolist()
    return first - ranges * (third - first)
