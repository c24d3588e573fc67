"""Multi-objective gradient correction."""

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.trainers.balancers.base import MatrixAggregation


class MoCo(MatrixAggregation):
    """A min-norm direction from gradients that are tracked over many batches, whose noise would otherwise bias it.

    Source: Fernando et al., Mitigating Gradient Bias in Multi-Objective Learning, 2023, algorithm 1. Deviation 1: the
    weights stay on the simplex by a softmax, as in LibMTL, instead of a projection. Deviation 2, from there
    too: gradients are divided by their norm and multiplied by their loss.

    Args:
        beta: Step size of the tracked gradients; 1 without decay tracks nothing. On top of AdamW's own average the
            published tracking, over ever more batches, slows training down several times on Meta-World MT10.
        gamma: Step size of the weights.
        beta_decay: Power of the step with which beta falls.
        gamma_decay: Power of the step with which gamma falls.
        rho: Ridge of the min-norm problem.
    """

    tracked: Tensor
    simplex: Tensor
    calls: Tensor

    def __init__(
        self,
        beta: float = 0.5,
        gamma: float = 0.1,
        beta_decay: float = 0.5,
        gamma_decay: float = 0.5,
        rho: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < beta <= 1 or gamma <= 0 or min(beta_decay, gamma_decay, rho) < 0:
            raise InputError(
                f"beta is {beta}, gamma {gamma}, decays {beta_decay} and {gamma_decay}, rho {rho}; expected beta in "
                "(0, 1], a positive gamma and no negative number."
            )
        self.beta, self.gamma, self.rho = beta, gamma, rho
        self.beta_decay, self.gamma_decay = beta_decay, gamma_decay

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """The tracked gradient of every task, its weight, and how many batches there were."""
        return {
            "tracked": torch.zeros(tasks, size),
            "simplex": torch.full((tasks,), 1 / tasks, dtype=torch.float64),
            "calls": torch.zeros((), dtype=torch.int64),
        }

    def aggregate(self, rows: Tensor, losses: Tensor | None = None, task_ids: Tensor | None = None) -> Tensor:
        """See `MatrixAggregation.aggregate`."""
        losses, task_ids = self._defaults(rows, losses, task_ids)
        self.tracked = self.tracked.to(rows)
        self.calls += 1
        call = float(self.calls)
        scale = losses / (rows.norm(dim=1) + 1e-8)
        rate = self.beta / call**self.beta_decay
        tracked = self.tracked[task_ids].mul_(1 - rate).addcmul_(rows, (rate * scale)[:, None])
        self.tracked[task_ids] = tracked
        places = task_ids.cpu()
        products = (tracked @ tracked.T).to("cpu", torch.float64) + self.rho * torch.eye(len(rows), dtype=torch.float64)
        weights = self.simplex[places]
        moved = (weights - self.gamma / call**self.gamma_decay * products @ weights).softmax(0)
        self.simplex[places] = moved * weights.sum()
        return moved.to(rows) @ tracked
