"""What a decision transformer knows of returns: how far they reach in the data, and what to ask for when acting.

Returns rank episodes only where these end alike. Data that end some steps after success (`mtorl collect` with recipes
near the expert) give failures, which run to the horizon, the higher return; collect with `--after_success` equal to the
horizon if the policy is to be steered by returns.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mtorl.datasets.episode import Demonstration
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore

SPREAD = 0.05, 0.95
"""Quantiles between which returns-to-go spread: one odd episode does not decide how the others look."""


@dataclass(frozen=True)
class ReturnRange:
    """Of N tasks or episodes the return that is asked for, and how far returns-to-go reach.

    Attributes:
        scale: `[N]`, what returns are divided by.
        target: `[N]`, what is asked for.
        least: `[N]`, what is left of it does not fall below this, unless less is asked for.
        most: `[N]`, nor rise above this, unless more is asked for; infinite where nothing is known of it.
    """

    scale: Tensor
    target: Tensor
    least: Tensor
    most: Tensor

    @property
    def limits(self) -> tuple[Tensor, Tensor]:
        """Between which what is left of the target stays, `[N]` each: what the data show, or the target itself."""
        return self.least.minimum(self.target), self.most.maximum(self.target)

    def select(self, rows: Tensor) -> "ReturnRange":
        """That of these tasks `[N]`."""
        return ReturnRange(self.scale[rows], self.target[rows], self.least[rows], self.most[rows])

    def shown(self, demonstration: Demonstration, rows: int) -> "ReturnRange":
        """That of episodes of a hidden task `[rows]`: a demonstration stands for the task's data."""
        target = self.target.new_full((rows,), float(demonstration.rewards.sum()))
        if bool(self.most.isinf().any()):  # trained before returns were divided by their spread
            return ReturnRange(target.clamp(min=1.0), target, target.clamp(max=0.0), torch.full_like(target, math.inf))
        left = torch.from_numpy(demonstration.returns_to_go).to(target)
        left[0] = target[0]  # the same sum to the last bit
        least, most = left.min().clamp(max=0.0).expand_as(target), left.max().clamp(min=0.0).expand_as(target)
        return ReturnRange(spread(least, most), target, least, most)


def spread(low: Tensor, high: Tensor) -> Tensor:
    """Width of the range from `low` to `high` that includes zero; one where nothing but zero is in it."""
    width = high.clamp(min=0.0) - low.clamp(max=0.0)  # deviation 3 of decision_transformer.py
    return torch.where(width > 0, width, 1.0)


def expected_returns(spec: DataSpec, quantile: float) -> ReturnRange:
    """That of each task `[T]`, as far as returns of whole episodes say; asked for is that quantile of them."""
    least, low, target, high, most = (
        torch.from_numpy(spec.return_quantile(it)) for it in (0.0, SPREAD[0], quantile, SPREAD[1], 1.0)
    )
    return ReturnRange(spread(low, high), target, least.clamp(max=0.0), most.clamp(min=0.0))


def recorded_reach(
    stores: Sequence[EpisodeStore], task_names: Sequence[str]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Of each task the spread, the least and the most of all recorded returns-to-go, scalars.

    Where rewards are of both signs, returns-to-go reach further than returns do.
    """
    reach = [
        np.stack([each.reduceat(store.returns_to_go, store.starts[:-1]) for each in (np.minimum, np.maximum)])
        for store in stores
    ]
    for name in task_names:
        mine = [
            found[:, store.index["task"] == store.task_names.index(name)]
            for store, found in zip(stores, reach, strict=True)
            if name in store.task_names
        ]
        lowest, highest = np.concatenate(mine, 1).astype(np.float64)
        low, high = np.quantile(lowest, SPREAD[0]), np.quantile(highest, SPREAD[1])
        width = spread(torch.tensor(low), torch.tensor(high))
        yield width, torch.tensor(min(float(lowest.min()), 0.0)), torch.tensor(max(float(highest.max()), 0.0))
