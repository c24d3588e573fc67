"""Where tasks quarrel: how their gradients stand to each other at a run's parameters.

Where training has converged, the tasks' gradients sum to almost nothing, so that some of them must point apart: compare
checkpoints, or runs at the same step, and look at norms beside cosines.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mtorl import InputError, checks
from mtorl.datasets.sampler import TaskSampler
from mtorl.envs.results import Source
from mtorl.files import read_json, sha256, write_json
from mtorl.runs.run import Run
from mtorl.runs.sharing_price import ERRORS, PRICE, SharingPrice
from mtorl.schema import Integer, ListOf, MappingOf, Names, Number, Plain, Record, Text, check
from mtorl.trainers.entries import Matrix
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import TaskGradients
from mtorl.trainers.monitor import conflicts
from mtorl.trainers.phase_trainer import phase_functions
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import Sharing

CONFLICTS = Record(
    {
        "source": MappingOf(Plain()),
        "batches": Integer(1),
        "windows": Integer(1),
        "phases": ListOf(
            Record(
                {
                    "phase": Text(),
                    "tasks": Names("T"),
                    "cosines": ListOf(ListOf(Number(-1, 1), "T"), "T"),
                    "conflict_rate": ListOf(ListOf(Number(0, 1), "T"), "T"),
                    "negative_pairs": Number(0, 1),
                    "norm": ERRORS,
                    "noise": MappingOf(Number(0, 1)),
                    "mean_cosine": Number(-1, 1),
                    "least_cosine": Number(-1, 1),
                }
            ),
            "",
        ),
    },
    optional={"price": PRICE},
)


@dataclass(frozen=True)
class PhaseConflicts:
    """How the gradients of all tasks stand to each other in one phase.

    Attributes:
        phase: Its name.
        tasks: Their names, in the order of the rows.
        cosines: Between the tasks' gradients, each the mean of all batches, `[T, T]`: noise of single batches would
            draw cosines to zero.
        conflict_rate: Share of the single batches in which two tasks' gradients point apart, `[T, T]`.
        negative_pairs: Share of pairs of tasks whose mean gradients point apart.
        norm: Of each task's mean gradient.
        noise: Share of its square that is noise of the windows: where it is large, cosines say little.
    """

    phase: str
    tasks: list[str]
    cosines: Matrix
    conflict_rate: Matrix
    negative_pairs: float
    norm: dict[str, float]
    noise: dict[str, float]

    def pairs(self) -> list[tuple[float, str, str]]:
        """Every pair of tasks with its cosine, those that quarrel most first."""
        count = len(self.tasks)
        return sorted(
            (self.cosines[one][other], self.tasks[one], self.tasks[other])
            for one in range(count)
            for other in range(one + 1, count)
        )

    def others(self, place: int) -> dict[str, float]:
        """Cosines of the task in that row with all others, by their names."""
        row = zip(self.tasks, self.cosines[place], strict=True)
        return {name: cosine for other, (name, cosine) in enumerate(row) if other != place}

    @property
    def mean_cosine(self) -> float:
        """Of all pairs."""
        return float(np.mean([it[0] for it in self.pairs()]))

    @property
    def least_cosine(self) -> float:
        """Of all pairs."""
        return self.pairs()[0][0]

    @property
    def mean_rate(self) -> float:
        """Share of pairs that point apart in a single batch, mean of the batches."""
        count = len(self.tasks)
        return float(np.sum(self.conflict_rate)) / (count * (count - 1))


@dataclass(frozen=True)
class Conflicts:
    """What was measured at one checkpoint of a run.

    Attributes:
        source: What identifies the checkpoint.
        batches: Batches of fresh windows that gradients were taken on.
        windows: Windows of each task in a batch.
        phases: One entry for each phase of the agent.
        price: Of sharing, if single-task runs were given.
    """

    source: Source
    batches: int
    windows: int
    phases: list[PhaseConflicts]
    price: SharingPrice | None = None

    def save(self, path: Path) -> None:
        """Writes it as JSON, atomically."""
        phases = [asdict(it) | {"mean_cosine": it.mean_cosine, "least_cosine": it.least_cosine} for it in self.phases]
        content = {"source": self.source.plain(), "batches": self.batches, "windows": self.windows, "phases": phases}
        write_json(path, content | ({"price": self.price.plain()} if self.price else {}))

    @classmethod
    def load(cls, path: Path) -> "Conflicts":
        """Reads what `save` wrote.

        Raises:
            InputError: The file is missing or malformed.
        """
        content = read_json(path, "conflicts")
        check(content, CONFLICTS, f"conflicts {path}", "Delete it, and run `mtorl conflicts` again.")
        own = ("phase", "tasks", "cosines", "conflict_rate", "negative_pairs", "norm", "noise")
        phases = [PhaseConflicts(**{name: it[name] for name in own}) for it in content["phases"]]
        price = SharingPrice.read(content["price"]) if "price" in content else None
        return cls(Source.read(content["source"]), content["batches"], content["windows"], phases, price)


def conflicts_path(run: Run, checkpoint: str) -> Path:
    """Where a run's folder keeps them."""
    return run.home / f"conflicts-{checkpoint}.json"


def kept_price(path: Path, source: Source) -> SharingPrice | None:
    """The price of sharing that a file holds already; None if it holds none of these weights."""
    found = Conflicts.load(path) if path.exists() else None
    return found.price if found and found.source == source else None


def kept_conflicts(run: Run, checkpoint: str = "last") -> Conflicts | None:
    """What `mtorl conflicts` found of a checkpoint; None if it was not asked.

    Raises:
        InputError: The checkpoint has changed since, or the file is malformed.
    """
    path = conflicts_path(run, checkpoint)
    if not path.exists():
        return None
    found = Conflicts.load(path)
    file = run.checkpoints().file(checkpoint) if run.checkpoints().steps() else None
    if file and file.exists() and sha256(file) != found.source.sha256:  # deleted since: nothing contradicts it
        raise InputError(
            f"{path} is of step {found.source.step}; the checkpoint {checkpoint} has changed since. Run `mtorl "
            f"conflicts {run.folder} --checkpoint {checkpoint}` again."
        )
    return found


def measure_conflicts(run: Run, checkpoint: str = "last", batches: int = 32, windows: int | None = None) -> Conflicts:
    """Takes gradients of all tasks at a run's parameters, through its sharing, on fresh windows of its data.

    Args:
        run: The run.
        checkpoint: `last`, `best` on training goals, or a step.
        batches: How many batches.
        windows: Windows of each task in a batch; as in training by default.

    Raises:
        InputError: The run has one task, its tasks share no parameters, the data are not those that it began with, or
            gradients are not finite.
    """
    checks.at_least(1, batches=batches, windows=windows)
    if len(run.spec.task_names) < 2:
        raise InputError(f"{run.folder} is a run of one task, which has none to quarrel with; expected several.")
    experiment = run.with_own_groups(run.configuration.experiment())
    stores, spec = experiment.open_data()
    run.refuse_other_data(spec, experiment.data)
    agent, sharing, source = run.trained(checkpoint)
    experiment = replace(experiment, windows=windows or experiment.windows)
    each = [phase_functions(agent, phase, sharing, experiment.execution) for phase in agent.eval().phases]
    sharing_phases = [functions for functions in each if len(functions.space)]
    if not sharing_phases:
        raise InputError(f"the tasks of {run.folder} share no parameters; expected a run in which they share some.")
    found = []
    for functions in sharing_phases:
        sampler = experiment.build_probe(stores, agent, f"conflicts {functions.phase.name}")
        with isolated(experiment.seed, "conflicts"):  # some losses draw noise
            found.append(_phase_conflicts(functions, sharing[functions.phase.name], sampler, batches))
    return Conflicts(source, batches, experiment.windows, found)


def _phase_conflicts(functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, batches: int) -> PhaseConflicts:
    names, phase = list(functions.agent.spec.task_names), functions.phase.name
    mean, apart = torch.zeros(0), torch.zeros(len(names), len(names))
    squares = torch.zeros(len(names), dtype=torch.float64)
    for number in range(batches):
        gradients, _ = functions.gradients(sampler.draw(), sharing)
        _refuse_infinite(gradients, names, phase)
        apart += (gradients.gramian < 0).fill_diagonal_(False)
        squares += gradients.gramian.diagonal() / batches
        part = gradients.pulled_back / batches  # a copy: the next batch overwrites the matrix
        mean = mean.add_(part) if number else part
    found = TaskGradients(gradients.losses, mean, gradients.task_ids)
    entry, rates = conflicts(0, phase, found, names), (apart / batches).tolist()
    noise = dict(zip(names, _noise(squares, found.gramian.diagonal(), batches).tolist(), strict=True))
    return PhaseConflicts(phase, names, entry.cosines, rates, entry.negative_pairs, entry.norm, noise)


def _noise(squares: Tensor, of_mean: Tensor, batches: int) -> Tensor:
    """Share of the squared norm of a mean of gradients that is due to the batches; all of it for a single batch.

    Args:
        squares: `[T]`, mean over the batches of the squared norm.
        of_mean: `[T]`, squared norm of the mean.
        batches: How many.
    """
    if batches == 1:
        return torch.ones_like(squares)
    variance = (squares - of_mean) / (batches - 1)  # of the mean: what differs between batches, divided by their number
    return torch.where(of_mean > 0, variance / of_mean.clamp(min=1e-300), 0.0).clamp(0, 1)


def _refuse_infinite(gradients: TaskGradients, names: Sequence[str], phase: str) -> None:
    finite = gradients.losses.isfinite().cpu() & gradients.gramian.diagonal().isfinite()
    if not bool(finite.all()):
        spoilt = [name for name, fine in zip(names, finite.tolist(), strict=True) if not fine]
        raise InputError(
            f"losses or gradients of {', '.join(spoilt)} are not finite in phase {phase}. Check the data with "
            "`mtorl info --verify`, or take an earlier --checkpoint."
        )
