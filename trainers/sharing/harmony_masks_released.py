"""What the released code of HarmoDT does, faults included, to be compared with what the paper says.

Faults:
1. Gradients are multiplied by the mask before anything is made of them: where a mask is off they are zero.
2. What comes back is chosen by `agreement + 1` in single precision: products of 1e-8 vanish beside the 1, all weights
   are equal, and the first ones come back whatever the gradients are. (The released code takes what its sorting
   happens to put first.)
3. The mean gradient is summed up in the place of the first task's: that task is scored by the mean.
4. Gradients are not brought to the same length, but longer ones clipped.

Deviation 1: the release draws masks for all tensors, but computes with those of the transformer's only; ours are those
of the maskable matrices.
"""

import torch
from torch import Tensor

from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.gradients import DenseGradients
from mtorl.trainers.sharing.harmony_masks import HarmonyMasks, Importance
from mtorl.trainers.sharing.masks import Place

CLIP = 0.25


class HarmonyMasksReleased(HarmonyMasks):
    """Harmony masks as released: recovery is blind, and a hundred weights move at a time.

    Source: the code published with Hu et al., HarmoDT, 2024 (read, not copied).

    Args:
        sparsity: Share of the maskable weights that a mask leaves out, in [0, 1).
        importance: Of a weight to a task: `fisher` (squared gradient) or `magnitude` (of the weight).
        agreement_weight: The paper's lambda.
        interval: Steps of single tasks between two changes, as the release counts: 500 of these are 10 training steps
            of 50 tasks.
        swap_count: Weights that move at half time.
    """

    def __init__(
        self,
        sparsity: float = 0.2,
        importance: Importance = "fisher",
        agreement_weight: float = 10.0,
        interval: int = 500,
        swap_count: int = 100,
    ) -> None:
        super().__init__(
            sparsity,
            importance=importance,
            agreement_weight=agreement_weight,
            interval=interval,
            swap_count=swap_count,
            probes=1,
            normalise=False,
        )

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """See `TaskMasks.init`."""
        super().init(space, tasks, generator)  # Deviation 1: of the maskable matrices
        self._steps = max(self.interval // tasks, 1)

    def due(self, index: int) -> bool:
        """After every `interval` steps of single tasks."""
        return (index + 1) % self._steps == 0

    def prepare(self, parameters: dict[str, Tensor], gradients: DenseGradients) -> None:
        """See `MovingMasks.prepare`."""
        norms = gradients.dense.norm(dim=1, keepdim=True)
        seen = gradients.dense * (CLIP / norms.clamp(min=CLIP))  # Fault 4
        for place in self.places.values():
            seen[:, place.flat] *= self.masks[:, place.mine]  # Fault 1
        super().prepare(parameters, DenseGradients(gradients.losses, seen, gradients.task_ids))
        for place in self.places.values():
            self._rows[0, place.flat] = self._mean[place.mine]  # Fault 3

    def scores(self, row: int, place: Place) -> tuple[Tensor, Tensor]:
        """See `MovingMasks.scores`."""
        leave, agreement = super().scores(row, place)
        return leave, (agreement.float() + 1.0).to(agreement)  # Fault 2
