"""Where tasks quarrel: how their gradients stand to each other at a run's parameters."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from mtorl import checks
from mtorl.datasets.sampler import TaskSampler
from mtorl.envs.results import Source
from mtorl.files import read_json, sha256, write_json
from mtorl.runs.run import Run
from mtorl.runs.sharing_price import ERRORS, PRICE, SharingPrice
from mtorl.schema import Integer, ListOf, MappingOf, Names, Number, Plain, Record, Text, check
from mtorl.trainers.entries import ConflictsEntry, Matrix
from mtorl.trainers.executions import PhaseFunctions
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
                    "negative_pairs": Number(0, 1),
                    "norm": ERRORS,
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
        cosines: Between the gradients of two tasks, mean of the batches, `[T, T]`.
        negative_pairs: Share of pairs of tasks whose gradients pointed apart, over all batches.
        norm: Of each task's gradient, mean of the batches.
    """

    phase: str
    tasks: list[str]
    cosines: Matrix
    negative_pairs: float
    norm: dict[str, float]

    def pairs(self) -> list[tuple[float, str, str]]:
        """Every pair of tasks with its cosine, those that quarrel most first."""
        count = len(self.tasks)
        return sorted(
            (self.cosines[one][other], self.tasks[one], self.tasks[other])
            for one in range(count)
            for other in range(one + 1, count)
        )

    @property
    def mean_cosine(self) -> float:
        """Of all pairs; zero for a single task."""
        return float(np.mean([it[0] for it in self.pairs()] or [0.0]))

    @property
    def least_cosine(self) -> float:
        """Of all pairs; zero for a single task."""
        return min((it[0] for it in self.pairs()), default=0.0)


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
        own = ("phase", "tasks", "cosines", "negative_pairs", "norm")
        phases = [PhaseConflicts(**{name: it[name] for name in own}) for it in content["phases"]]
        price = SharingPrice.read(content["price"]) if "price" in content else None
        return cls(Source.read(content["source"]), content["batches"], content["windows"], phases, price)


def conflicts_path(run: Run, checkpoint: str) -> Path:
    """Where a run's folder keeps them."""
    return run.folder / f"conflicts-{checkpoint}.json"


def kept_conflicts(run: Run, checkpoint: str) -> Conflicts | None:
    """What the run's folder keeps of a checkpoint; None if there is nothing, or the checkpoint has changed since.

    Raises:
        InputError: The file is malformed.
    """
    path, file = conflicts_path(run, checkpoint), run.checkpoints().file(checkpoint)
    if not path.exists():
        return None
    found = Conflicts.load(path)
    return found if not file.exists() or sha256(file) == found.source.sha256 else None


def measure_conflicts(run: Run, checkpoint: str = "last", batches: int = 8, windows: int | None = None) -> Conflicts:
    """Takes gradients of all tasks at a run's parameters, through its sharing, on fresh windows of its data.

    Args:
        run: The run.
        checkpoint: `last`, `best` on training goals, or a step.
        batches: How many batches.
        windows: Windows of each task in a batch; as in training by default.

    Raises:
        InputError: The data are not those that the run began with, or gradients are not finite.
    """
    checks.at_least(1, batches=batches, windows=windows)
    experiment = run.configuration.experiment()
    stores, spec = experiment.open_data()
    run.refuse_other_data(spec, experiment.data)
    agent, sharing, source = run.trained(checkpoint)
    experiment = replace(experiment, windows=windows or experiment.windows)
    found = []
    for phase in agent.eval().phases:
        functions = phase_functions(agent, phase, sharing, experiment.execution)
        sampler = experiment.build_probe(stores, agent, f"conflicts {phase.name}")
        with isolated(experiment.seed, "conflicts"):
            found.append(_phase_conflicts(functions, sharing[phase.name], sampler, batches))
    return Conflicts(source, batches, experiment.windows, found)


def _phase_conflicts(functions: PhaseFunctions, sharing: Sharing, sampler: TaskSampler, batches: int) -> PhaseConflicts:
    names, entries = list(functions.agent.spec.task_names), []
    for number in range(batches):
        gradients, _ = functions.gradients(sampler.draw(), sharing)
        entries.append(conflicts(number, functions.phase.name, gradients, names))
    return _mean(entries)


def _mean(entries: Sequence[ConflictsEntry]) -> PhaseConflicts:
    """Of what was seen in several batches of the same tasks."""
    first = entries[0]
    return PhaseConflicts(
        first.phase,
        first.tasks,
        np.mean([entry.cosines for entry in entries], 0).round(4).tolist(),
        float(np.mean([entry.negative_pairs for entry in entries])),
        {task: float(np.mean([entry.norm[task] for entry in entries])) for task in first.tasks},
    )
