"""Binary masks on the backbone's weight matrices: a sub-network for every task, or for every group of tasks.

What is masked, see `weight_masks.py`.
"""

import math
from abc import abstractmethod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mtorl import InputError, checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.schema import State
from mtorl.trainers.gradients import DenseGradients
from mtorl.trainers.sharing.densities import Distribution, densities
from mtorl.trainers.sharing.selection import lowest
from mtorl.trainers.sharing.weight_masks import Place, WeightMasks, factors

SwapSchedule = Literal["hump", "decay", "constant"]
Scope = Literal["global", "per_tensor"]


class TaskMasks(WeightMasks):
    """Every task computes with the weights that its mask keeps, and zeros elsewhere.

    Args:
        sparsity: Share of the maskable weights that a mask leaves out, in [0, 1).
        distribution: Over the matrices: `erk` (Erdos-Renyi kernel, Mocanu et al., 2018: small and narrow matrices keep
            more) or `uniform`.

    Attributes:
        masks: bool.
    """

    moved = "of the zeros were none when the masks were drawn"

    @abstractmethod
    def __init__(self, sparsity: float = 0.2, distribution: Distribution = "erk") -> None:
        super().__init__()
        if not 0 <= sparsity < 1:
            raise InputError(f"sparsity is {sparsity}; expected a share in [0, 1): 0.2 leaves out a fifth.")
        checks.one_of("distribution", distribution, Distribution)
        self.sparsity, self.distribution = sparsity, distribution
        self._unused: tuple[list[int], dict[str, Tensor]] | None = None

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """Draws the masks: every weight is kept with its matrix's density, for each row by itself."""
        stop = self.locate(space)
        masks = torch.ones(self.rows(tasks), stop, dtype=torch.bool)
        shapes = [place.shape for place in self.places.values()]
        shares = densities(shapes, 1 - self.sparsity, self.distribution)
        for place, density in zip(self.places.values(), shares, strict=True):
            if density < 1:
                masks[:, place.mine] = torch.rand(len(masks), math.prod(place.shape), generator=generator) < density
        self._tasks = tasks
        self.register_buffer("masks", masks, persistent=False)
        self._drawn = packed(masks)
        self._unused = None

    def without_task(self, parameters: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The weights that at least half of the tasks keep (HarmoDT's vote for unseen tasks)."""
        rows = [self.row(task) for task in range(self._tasks)]
        votes = self.masks[rows].sum(0)
        return [self._with(parameters, 2 * votes >= len(rows))]

    def unused(self, task_ids: Tensor) -> dict[str, Tensor]:
        """See `Sharing.unused`; kept until masks or tasks change."""
        rows = sorted({self.row(task) for task in task_ids.tolist()})
        if self._unused is None or self._unused[0] != rows:
            used = self.masks[rows].any(0)
            unused = {name: (~used[place.mine]).nonzero().flatten() for name, place in self.places.items()}
            self._unused = rows, {name: entries for name, entries in unused.items() if len(entries)}
        return self._unused[1]

    def changed(self) -> float:
        """Share of the masks' zeros that were not zeros when they were drawn; mean of the masks."""
        shares, size = [], self.masks.shape[1]
        for before, mask in zip(self._drawn, self.masks, strict=True):
            now = packed(mask)
            zeros = size - np.bitwise_count(now).sum(dtype=np.int64)
            revived = np.bitwise_count(~before & now).sum(dtype=np.int64)  # off when drawn, on now
            shares.append(revived / max(zeros, 1))
        return float(np.mean(shares))

    def get_extra_state(self) -> State:
        """The masks, and those that were drawn, eight to a byte."""
        shapes = {name: list(place.shape) for name, place in self.places.items()}
        now, drawn = torch.from_numpy(packed(self.masks)), torch.from_numpy(self._drawn)
        return {"masks": now, "drawn": drawn, "shapes": shapes}

    def set_extra_state(self, state: State) -> None:
        """The masks from `get_extra_state`.

        Raises:
            InputError: They are of another network, or of another number of tasks.
        """
        saved = state["masks"]
        self._check(state["shapes"], len(saved), "the masks")
        bits = np.unpackbits(saved.cpu().numpy(), axis=1, count=self.masks.shape[1])
        self.masks.copy_(torch.from_numpy(bits.astype(bool)))
        self._drawn, self._unused = state["drawn"].cpu().numpy(), None


class MovingMasks(TaskMasks):
    """Masks that, now and then, leave out some weights that they kept, and take in as many that they left out.

    How many weights a mask keeps never changes.

    Args:
        sparsity: See `TaskMasks`.
        distribution: See `TaskMasks`.
        interval: Training steps between two changes.
        swap_fraction: Share of a mask's zeros that move in a change, at the most; see `schedule`.
        swap_count: The same as a number of weights, instead of the share.
        schedule: How many of these move as training goes on: `hump` (none, all at half time, none; HarmoDT), `decay`
            (all to none along a cosine) or `constant`.
        scope: Compare scores over the whole network, or within each matrix, whose density then never changes.
        probes: Batches whose mean gradients the scores are made of.
    """

    def __init__(
        self,
        sparsity: float = 0.2,
        distribution: Distribution = "erk",
        interval: int = 100,
        swap_fraction: float = 0.05,
        swap_count: int | None = None,
        schedule: SwapSchedule = "hump",
        scope: Scope = "global",
        probes: int = 4,
    ) -> None:
        super().__init__(sparsity, distribution)
        checks.at_least(1, interval=interval)
        checks.at_least(0, probes=probes, swap_count=swap_count)
        checks.within("[0, 1]", swap_fraction=swap_fraction)
        checks.one_of("schedule", schedule, SwapSchedule)
        checks.one_of("scope", scope, Scope)
        self.interval, self.schedule, self.scope, self.probes = interval, schedule, scope, probes
        self.swap_fraction, self.swap_count = swap_fraction, swap_count

    def due(self, index: int) -> bool:
        """After every `interval` steps."""
        return (index + 1) % self.interval == 0

    def swaps(self, zeros: int, progress: float) -> int:
        """How many weights move in a mask with that many zeros."""
        most = int(self.swap_fraction * zeros) if self.swap_count is None else self.swap_count
        share = {
            "hump": 0.5 * (1 - math.cos(2 * math.pi * progress)),
            "decay": 0.5 * (1 + math.cos(math.pi * progress)),
            "constant": 1.0,
        }[self.schedule]
        return min(int(most * share + 1e-9), zeros)

    @abstractmethod
    def prepare(self, parameters: dict[str, Tensor], gradients: DenseGradients) -> None:
        """Works out what the scores of all masks need."""

    @abstractmethod
    def forget(self) -> None:
        """Lets go of what `prepare` worked out: gradients are large, and masks are copied to whoever plays."""

    @abstractmethod
    def scores(self, row: int, place: Place) -> tuple[Tensor, Tensor]:
        """What a mask goes by in one matrix, after `prepare`.

        Returns:
            Two vectors, an entry for each weight of the matrix. Where the mask is on, it leaves out the lowest of the
            first; where it is off, it takes in the highest of the second.
        """

    def update(self, parameters: dict[str, Tensor], gradients: DenseGradients, progress: float) -> dict[str, float]:
        """Moves all masks; what to leave out and what to take in is chosen from the masks as they were.

        Returns:
            `swapped`: weights moved, mean of the masks; `changed`: see `TaskMasks.changed`.
        """
        self.prepare(parameters, gradients)
        like = next(iter(parameters.values())).detach()
        leave = like.new_empty(self.masks.shape[1])  # once: fresh memory costs more than the arithmetic
        take = torch.empty_like(leave)
        swapped = sum(self._swap(row, progress, leave, take) for row in range(len(self.masks)))
        self._unused = None
        self.forget()
        return {"swapped": swapped / len(self.masks), "changed": self.changed()}

    def _swap(self, row: int, progress: float, leave: Tensor, take: Tensor) -> int:
        mask, moved = self.masks[row], 0
        places = list(self.places.values())
        spans = [place.mine for place in places] if self.scope == "per_tensor" else [slice(0, len(mask))]
        ones = [int(torch.count_nonzero(mask[span])) for span in spans]
        counts = [self.swaps(span.stop - span.start - most, progress) for span, most in zip(spans, ones, strict=True)]
        if not any(counts):
            return 0
        beyond = torch.finfo(leave.dtype).max / 4  # behind every score, and far from infinity
        for place in places:  # one matrix at a time stays in the cache
            on = factors(mask[place.mine])
            first, second = self.scores(row, place)
            torch.add(first, on ^ 1, alpha=beyond, out=leave[place.mine])
            torch.add(-second, on, alpha=beyond, out=take[place.mine])
        for span, count, most in zip(spans, counts, ones, strict=True):
            part, number = mask[span], min(count, most)
            off, back = lowest(leave[span], number), lowest(take[span], number)
            part[off], part[back] = False, True
            moved += number
        return moved


def packed(masks: Tensor) -> np.ndarray:
    """Masks bool `[..., M]` as uint8 `[..., ceil(M / 8)]`."""
    return np.packbits(masks.cpu().numpy(), axis=-1)
