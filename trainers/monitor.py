"""How the gradients of the tasks stand to each other, recorded during training with any balancer."""

import torch
from torch import Tensor

from mtorl.trainers.gradients import TaskGradients


def conflicts(gradients: TaskGradients, names: list[str]) -> dict[str, float | dict[str, float] | list[list[float]]]:
    """Numbers for the log about one batch.

    Args:
        gradients: Of the batch's tasks.
        names: The tasks' names, in the order of the rows.

    Returns:
        `negative_pairs`, the share of pairs of tasks whose gradients point apart; `mean_cosine` of all pairs; `norm` of
        each task's gradient; and `cosines`, the whole matrix `[T, T]`.
    """
    matrix = cosines(gradients.gramian)
    pairs = matrix[torch.triu(torch.ones_like(matrix, dtype=torch.bool), 1)]
    norms = gradients.gramian.diagonal().clamp(min=0).sqrt()
    return {
        "negative_pairs": float((pairs < 0).double().mean()) if len(pairs) else 0.0,
        "mean_cosine": float(pairs.mean()) if len(pairs) else 0.0,
        "norm": dict(zip(names, norms.tolist(), strict=True)),
        "cosines": [[round(value, 4) for value in row] for row in matrix.tolist()],
    }


def cosines(gramian: Tensor) -> Tensor:
    """Cosines `[T, T]` of the angles between gradients; zero for one that vanishes."""
    norms = gramian.diagonal().clamp(min=0).sqrt()
    scale = torch.where(norms > 0, 1 / norms.clamp(min=1e-300), 0.0)
    return (gramian * scale[:, None] * scale).clamp(-1, 1)
