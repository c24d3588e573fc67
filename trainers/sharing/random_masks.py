"""Random masks: the control that every other strategy must beat."""

from mtorl.trainers.sharing.densities import Distribution
from mtorl.trainers.sharing.masks import TaskMasks


class RandomMasks(TaskMasks):
    """Every task computes with its own random subset of the backbone's weights, fixed for the whole run.

    Source: the variant R of HarmoDT (Hu et al., 2024).

    Args:
        sparsity: Share of the maskable weights that a mask leaves out, in [0, 1).
        distribution: Over the matrices: `erk` (small and narrow matrices keep more) or `uniform`.
    """

    def __init__(self, sparsity: float = 0.2, distribution: Distribution = "erk") -> None:
        super().__init__(sparsity, distribution)
