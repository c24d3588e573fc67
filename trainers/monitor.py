"""How the tasks stand to each other, recorded during training: their gradients, modules and heads."""

import math

import torch
from torch import Tensor

from mtorl.agents.heads import Relations
from mtorl.trainers.entries import ConflictsEntry, RelationsEntry, RoutingEntry
from mtorl.trainers.gradients import TaskGradients


def conflicts(step: int, phase: str, gradients: TaskGradients, names: list[str]) -> ConflictsEntry:
    """What the log says of the gradients of one batch.

    Args:
        step: Number of the training step.
        phase: Name of the phase.
        gradients: Of the batch's tasks.
        names: The tasks' names, in the order of the rows.

    Returns:
        `negative_pairs`, the share of pairs of tasks whose gradients point apart; `mean_cosine` of all pairs; `norm` of
        each task's gradient; and `cosines`, the whole matrix `[T, T]`.
    """
    matrix = cosines(gradients.gramian)
    pairs = matrix[torch.triu(torch.ones_like(matrix, dtype=torch.bool), 1)]
    norms = gradients.gramian.diagonal().clamp(min=0).sqrt()
    return ConflictsEntry(
        step,
        phase,
        names,
        negative_pairs=float((pairs < 0).double().mean()) if len(pairs) else 0.0,
        mean_cosine=float(pairs.mean()) if len(pairs) else 0.0,
        norm=dict(zip(names, norms.tolist(), strict=True)),
        cosines=_rounded(matrix),
    )


def routing(step: int, layers: list[Tensor], names: list[str]) -> RoutingEntry:
    """What the log says of how tasks mix modules.

    Args:
        step: Number of the training step.
        layers: Of each layer probabilities `[T, ..., n]` that sum to one along the last axis, of a batch's tasks.
        names: The tasks' names, in the order of the rows.

    Returns:
        `entropy` of each task, mean over the mixtures, from 0 (one module) to 1 (all alike); `distances` between tasks
        `[T, T]`, mean over the mixtures of the total variation, from 0 to 1; and for each layer, from 1,
        `probabilities/1`, `[T, ...]` flattened.
    """
    mixtures = [layer.double().flatten(1, -2) if layer.ndim > 2 else layer.double()[:, None] for layer in layers]
    entropies, distances = [], []
    for mixture in mixtures:  # t m n
        most = math.log(mixture.shape[-1]) or 1.0
        entropies.append(torch.special.entr(mixture).sum(-1) / most)
        distances.append((mixture[:, None] - mixture[None]).abs().sum(-1) / 2)
    entropy = torch.cat(entropies, -1).mean(-1)
    return RoutingEntry(
        step,
        names,
        entropy=dict(zip(names, entropy.tolist(), strict=True)),
        distances=_rounded(torch.cat(distances, -1).mean(-1)),
        numbers={f"probabilities/{place}": _rounded(layer.flatten(1)) for place, layer in enumerate(layers, start=1)},
    )


def relations(step: int, found: Relations, present: list[str], names: list[str]) -> RelationsEntry:
    """What the log says of how tasks take from each other's heads.

    Args:
        step: Number of the training step.
        found: Of the agent.
        present: Names of a batch's tasks, of which the deviations are.
        names: Names of all tasks.

    Returns:
        `weights` `[T, T]`, those of each task in its row; and `deviation`, by what actions are uncertain.
    """
    deviation = dict(zip(present, found.deviations.tolist(), strict=True))
    return RelationsEntry(step, names, _rounded(found.weights), deviation)


def _rounded(matrix: Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in matrix.tolist()]


def cosines(gramian: Tensor) -> Tensor:
    """Cosines `[T, T]` of the angles between gradients; zero for one that vanishes."""
    norms = gramian.diagonal().clamp(min=0).sqrt()
    scale = torch.where(norms > 0, 1 / norms.clamp(min=1e-300), 0.0)
    return (gramian * scale[:, None] * scale).clamp(-1, 1)
