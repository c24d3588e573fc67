"""What the masks of a run are like: how much tasks have in common, where weights are kept, how masks moved."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.files import write_atomically
from mtorl.runs.run import Run
from mtorl.trainers.entries import SharingEntry
from mtorl.trainers.logs import Log
from mtorl.trainers.sharing.weight_masks import WeightMasks


@dataclass(frozen=True)
class MaskSummary:
    """The masks of one phase of a run.

    Attributes:
        phase: Its name.
        tasks: Names of the tasks, in the order of the rows below.
        overlap: Share of the maskable weights that two tasks both keep, `[T, T]`; the diagonal is their density.
        densities: Share of each matrix's weights that each task keeps, `[T]` by the matrix's name.
        sizes: Number of each matrix's weights.
        everyone: Share of each matrix's weights that all tasks keep: of soft masks, the mean of the least value.
        nobody: Share of each matrix's weights that no task keeps: of soft masks, what even the most leaves out.
        changed: How far masks are from where they began, from 0 to 1.
        moved: What that is a share of, in words.
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
    moved: str
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
    """The masks of each phase of a run, of all of its models; nothing for phases without masks."""
    if run.per_group:
        each = [(part.folder.name, one) for part in run.parts for one in summarise(part, checkpoint)]
        return [replace(one, phase=f"{name}, {one.phase}") for name, one in each]
    log = Log(run.folder).of(SharingEntry)
    found = []
    for phase, sharing in run.sharing(checkpoint).items():
        if isinstance(sharing, WeightMasks):
            changes = [row for row in log if row.phase == phase and "changed" in row.numbers]
            moves = [(row.step, row.numbers["changed"]) for row in changes]
            found.append(_summary(phase, run.spec.task_names, sharing, moves))
    return found


def _summary(phase: str, tasks: tuple[str, ...], masks: WeightMasks, moves: list[tuple[int, float]]) -> MaskSummary:
    rows = [masks.row(task) for task in range(len(tasks))]
    used = sorted(set(rows))
    everyone, nobody = {}, {}
    for name, place in masks.places.items():
        part = masks.masks[used, place.mine]
        everyone[name] = float(part.amin(0).double().mean())
        nobody[name] = float((1 - part.amax(0).double()).mean())
    return MaskSummary(
        phase,
        tasks,
        masks.overlap()[rows][:, rows],
        {name: value[rows] for name, value in masks.densities().items()},
        {name: place.shape.numel() for name, place in masks.places.items()},
        everyone,
        nobody,
        masks.changed(),
        masks.moved,
        moves,
    )


def export_masks(run: Run, path: str | Path, checkpoint: str = "last") -> Path:
    """Writes the masks of a run as `safetensors`: bool `[T, *shape]` by the matrix's name.

    Where two phases have masks of the same matrix, those of the phase that acts are written.

    Raises:
        InputError: The run has no masks, or soft ones.
    """
    from safetensors.torch import save

    phases = {name: it for name, it in run.sharing(checkpoint).items() if isinstance(it, WeightMasks)}
    if not phases:
        raise InputError(f"{run.folder} has no masks: it was trained with a sharing that has none, such as Shared.")
    soft = {type(masks).__name__ for masks in phases.values() if masks.masks.dtype != torch.bool}
    if soft:
        raise InputError(
            f"{run.folder} has {', '.join(sorted(soft))}, whose values lie between 0 and 1; expected masks that keep "
            "weights or leave them out, as FrozenMasks reads them. Read those with `Run.sharing`."
        )
    tasks, acting = range(len(run.spec.task_names)), run.configuration.experiment().build_agent(run.spec).acting_phases
    values: dict[str, Tensor] = {}
    for masks in (phases[name] for name in sorted(phases, key=lambda name: name in acting)):  # what acts comes last
        values |= {name: torch.stack([masks.mask(name, task) for task in tasks]) for name in masks.places}
    about = {"tasks": json.dumps(run.spec.task_names), "run": run.folder.name, "phases": str(len(phases))}
    content = save(values, about)
    path = Path(path)
    write_atomically(path, lambda file: file.write(content))
    return path
