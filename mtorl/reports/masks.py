"""What the masks of a run are like: how much tasks have in common, where weights are kept, how masks moved."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.files import write_atomically
from mtorl.reports.pages import subplots
from mtorl.runs.run import Run
from mtorl.trainers.logs import read_log
from mtorl.trainers.sharing.masks import TaskMasks


@dataclass(frozen=True)
class MaskSummary:
    """The masks of one phase of a run.

    Attributes:
        phase: Its name.
        tasks: Names of the tasks, in the order of the rows below.
        overlap: Share of the maskable weights that two tasks both keep, `[T, T]`; the diagonal is their density.
        densities: Share of each matrix's weights that each task keeps, `[T]` by the matrix's name.
        sizes: Number of each matrix's weights.
        everyone: Share of each matrix's weights that all tasks keep.
        nobody: Share of each matrix's weights that no task keeps.
        changed: Share of the masks' zeros that were not zeros when they were drawn.
        moves: (step, share changed until then) of every change.
    """

    phase: str
    tasks: tuple[str, ...]
    overlap: Tensor
    densities: dict[str, Tensor]
    sizes: dict[str, int]
    everyone: dict[str, float]
    nobody: dict[str, float]
    changed: float
    moves: list[tuple[int, float]]

    def pair_mean(self) -> float:
        """Mean overlap of two tasks."""
        return self._mean_of_pairs(self.overlap)

    def chance(self) -> float:
        """The same if masks had been drawn with their density in each matrix, without regard to each other."""
        sizes = torch.tensor([self.sizes[name] for name in self.densities], dtype=torch.float64)
        each = torch.stack(list(self.densities.values()))
        return self._mean_of_pairs(torch.einsum("mi,mj,m->ij", each, each, sizes / sizes.sum()))

    def _mean_of_pairs(self, values: Tensor) -> float:
        pairs = torch.triu(torch.ones_like(values, dtype=torch.bool), 1)
        return float(values[pairs].mean()) if pairs.any() else float(values.mean())


def summarise(run: Run, checkpoint: str = "last") -> list[MaskSummary]:
    """The masks of each phase of a run; nothing for phases without masks."""
    log = [row for row in read_log(run.folder) if row["kind"] == "sharing"]
    found = []
    for phase, sharing in run.sharing(checkpoint).items():
        if isinstance(sharing, TaskMasks):
            moves = [(row["step"], row["changed"]) for row in log if row["phase"] == phase and "changed" in row]
            found.append(_summary(phase, run.spec.task_names, sharing, moves))
    return found


def _summary(phase: str, tasks: tuple[str, ...], masks: TaskMasks, moves: list[tuple[int, float]]) -> MaskSummary:
    rows = [masks.row(task) for task in range(len(tasks))]
    used = sorted(set(rows))
    everyone, nobody = {}, {}
    for name, place in masks.places.items():
        part = masks.masks[used, place.mine]
        everyone[name] = float(part.all(0).double().mean())
        nobody[name] = float((~part.any(0)).double().mean())
    return MaskSummary(
        phase,
        tasks,
        masks.overlap()[rows][:, rows],
        {name: value[rows] for name, value in masks.densities().items()},
        {name: place.shape.numel() for name, place in masks.places.items()},
        everyone,
        nobody,
        masks.changed(),
        moves,
    )


def export_masks(run: Run, path: str | Path, checkpoint: str = "last") -> Path:
    """Writes the masks of a run as `safetensors`: bool `[T, *shape]` by the matrix's name.

    Where two phases have masks of the same matrix, those of the phase that acts are written.

    Raises:
        InputError: The run has no masks.
    """
    from safetensors.torch import save

    phases = {name: it for name, it in run.sharing(checkpoint).items() if isinstance(it, TaskMasks)}
    if not phases:
        raise InputError(f"{run.folder} has no masks: it was trained with a sharing that has none, such as Shared.")
    tasks, acting = range(len(run.spec.task_names)), run.configuration.experiment().build_agent(run.spec).acting_phases
    values: dict[str, Tensor] = {}
    for masks in (phases[name] for name in sorted(phases, key=lambda name: name in acting)):  # what acts comes last
        values |= {name: torch.stack([masks.mask(name, task) for task in tasks]) for name in masks.places}
    about = {"tasks": json.dumps(run.spec.task_names), "run": run.folder.name, "phases": str(len(phases))}
    content = save(values, about)
    path = Path(path)
    write_atomically(path, lambda file: file.write(content))
    return path


def draw_masks(summary: MaskSummary) -> Any:
    """Overlaps of all pairs of tasks, densities per matrix and task, and what all or none of the tasks keep."""
    names = [name.removesuffix("-v3") for name in summary.tasks]
    layers = [name.removesuffix(".weight").removeprefix("backbone.") for name in summary.densities]
    height = 1.2 + 0.22 * max(len(names), len(layers))
    figure, axes = subplots(1, 3, (15, max(height, 3.2)))
    left, middle, right = axes[0]
    shown = summary.overlap.clone()
    shown.fill_diagonal_(float("nan"))
    image = left.imshow(shown.numpy(), cmap="viridis")
    figure.colorbar(image, ax=left, shrink=0.8)
    left.set_title("weights that both tasks keep, share", fontsize=10)
    left.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    left.set_yticks(range(len(names)), names, fontsize=7)
    image = middle.imshow(torch.stack(list(summary.densities.values())).numpy(), cmap="viridis", aspect="auto", vmax=1)
    figure.colorbar(image, ax=middle, shrink=0.8)
    middle.set_title("weights kept, share, per matrix and task", fontsize=10)
    middle.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    middle.set_yticks(range(len(layers)), layers, fontsize=7)
    places = range(len(layers))
    right.barh(places, [100 * it for it in summary.everyone.values()], color="#0072b2", label="all tasks keep")
    right.barh(places, [-100 * it for it in summary.nobody.values()], color="#d55e00", label="no task keeps")
    right.set_yticks(places, layers, fontsize=7)
    right.set_ylim(len(layers) - 0.5, -0.5)
    right.set_title("share of the matrix, %", fontsize=10)
    right.axvline(0, color="#888888", linewidth=0.8)
    right.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return figure


def draw_moves(moves: Sequence[tuple[str, list[tuple[int, float]]]]) -> Any:
    """How far masks are from where they began, over training, one curve per label."""
    figure, axes = subplots(1, 1, (7, 3.2))
    axis = axes[0][0]
    for label, points in moves:
        steps, shares = zip(*points, strict=True)
        axis.plot(steps, [100 * share for share in shares], marker=".", label=label)
    axis.set_xlabel("training step")
    axis.set_title("zeros of the masks that were none when they were drawn, %", fontsize=10)
    axis.set_ylim(bottom=0)
    axis.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return figure
