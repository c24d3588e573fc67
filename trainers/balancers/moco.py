"""Multi-objective gradient correction."""

import torch
from torch import Tensor

from mtorl import checks
from mtorl.trainers.balancers.base import MatrixAggregation, sizes
from mtorl.trainers.balancers.solvers import onto_simplex


class MoCo(MatrixAggregation):
    """A min-norm direction from gradients that are tracked over many batches, whose noise would otherwise bias it.

    Source: Fernando et al., Mitigating Gradient Bias in Multi-Objective Learning, 2023, algorithm 1. Deviation 1, as in
    LibMTL: gradients are divided by their norm and multiplied by their loss. Deviation 2: step sizes of the weights are
    in units of the mean squared length of the tracked gradients, or they would do nothing where losses are small.
    Weights are projected onto the simplex, as published; LibMTL's softmax of them draws all to the same weight.

    Args:
        beta: Step size of the tracked gradients; 1 without decay tracks nothing. On top of AdamW's own average the
            published tracking, over ever more batches, slows training down several times on Meta-World MT10.
        gamma: Step size of the weights.
        beta_decay: Power of the step with which beta falls.
        gamma_decay: Power of the step with which gamma falls.
        rho: Ridge of the min-norm problem, in the same units.
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
        checks.within("(0, 1]", beta=beta)
        checks.within("(0, inf)", gamma=gamma)
        checks.within("[0, inf)", beta_decay=beta_decay, gamma_decay=gamma_decay, rho=rho)
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
        scale = sizes(losses, self) / (rows.norm(dim=1) + 1e-8)  # Deviation 1
        rate = self.beta / call**self.beta_decay
        tracked = self.tracked[task_ids].mul_(1 - rate).addcmul_(rows, (rate * scale)[:, None])
        self.tracked[task_ids] = tracked
        places = task_ids.cpu()
        products = (tracked @ tracked.T).to("cpu", torch.float64)
        products /= products.diagonal().mean().clamp(min=torch.finfo(torch.float64).tiny)  # Deviation 2
        products += self.rho * torch.eye(len(rows), dtype=torch.float64)
        total = self.simplex[places].sum()
        weights = self.simplex[places] / total
        moved = weights - self.gamma / call**self.gamma_decay * (products @ weights)
        self.last_weights = torch.from_numpy(onto_simplex(moved.numpy()))
        self.simplex[places] = self.last_weights * total
        return self.last_weights.to(rows) @ tracked
