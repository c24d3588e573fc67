"""One harmony mask for each group of tasks (G-HarmoDT). Reconstructed from the abstract."""

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets.grouping import Grouping
from mtorl.trainers.sharing.harmony_masks import HarmonyMasks, Importance
from mtorl.trainers.sharing.masks import Distribution, Scope, SwapSchedule


class GroupMasks(HarmonyMasks):
    """Tasks of a group compute with the same mask, which moves by the mean of their gradients.

    Groups come from a file of `mtorl group RUN --groups 3 --out FILE`, whose tasks must be those of the run, in their
    order.

    Source: Hu et al., Task-Aware Harmony Multi-Task Decision Transformer, 2024 (abstract).

    Args:
        grouping: The file.
        sparsity: Share of the maskable weights that a mask leaves out, in [0, 1).
        distribution: Over the matrices at first: `erk` (small and narrow matrices keep more) or `uniform`.
        importance: Of a weight to a group: `fisher` (squared gradient), `magnitude` (of the weight) or `gradient` (its
            magnitude).
        agreement_weight: The paper's lambda.
        interval: Training steps between two changes.
        swap_fraction: Share of a mask's zeros that move in a change, at the most; see `schedule`.
        swap_count: The same as a number of weights, instead of the share.
        schedule: How many of these move as training goes on: `hump` (none, all at half time, none), `decay` (all to
            none along a cosine) or `constant`.
        scope: Compare scores over the whole network, or within each matrix, whose density then never changes.
        probes: Batches whose mean gradients the scores are made of.
    """

    def __init__(
        self,
        grouping: str,
        sparsity: float = 0.2,
        distribution: Distribution = "erk",
        importance: Importance = "fisher",
        agreement_weight: float = 10.0,
        interval: int = 100,
        swap_fraction: float = 0.05,
        swap_count: int | None = None,
        schedule: SwapSchedule = "hump",
        scope: Scope = "global",
        probes: int = 4,
    ) -> None:
        super().__init__(
            sparsity,
            distribution,
            importance,
            agreement_weight,
            interval,
            swap_fraction,
            swap_count,
            schedule,
            scope,
            probes,
        )
        self.grouping = grouping
        self._groups = Grouping.load(grouping)

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """See `TaskMasks.init`.

        Raises:
            InputError: The file groups another number of tasks.
        """
        if len(self._groups.labels) != tasks:  # their names are not known here
            raise InputError(
                f"{self.grouping} groups {len(self._groups.labels)} tasks; expected {tasks}, those of the run. Group "
                "the tasks of a run on the same data with `mtorl group`."
            )
        super().init(space, tasks, generator)

    def rows(self, tasks: int) -> int:
        """One mask for each group."""
        return self._groups.count

    def row(self, task: int) -> int:
        """The group of a task."""
        return self._groups.labels[task]

    def row_gradients(self, dense: Tensor) -> Tensor:
        """The mean over each group's tasks."""
        labels = torch.tensor(self._groups.labels, device=dense.device)
        return torch.stack([dense[labels == group].mean(0) for group in range(self._groups.count)])
