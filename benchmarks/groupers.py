"""What groupers find, what GradTAG costs, and how well it predicts what fine-tuning on sets of tasks does.

    python benchmarks/groupers.py planted        # ten minutes: two planted families of PointReach, ten seeds
    python benchmarks/groupers.py cost           # minutes: GradTAG on fifty tasks, time and memory
    python benchmarks/groupers.py ranks RUN      # half an hour: of a run of BehaviorCloning, e.g. of bc_mt10.yaml

Each writes its part of results/groupers.json.
"""

import copy
import json
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import RESULTS, commit, make_spec, save
from scipy.stats import spearmanr
from torch import Tensor

from mtorl.agents import Agent, BehaviorCloning
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.sampler import TaskSampler
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers import (
    DMTG,
    AgreementKMeans,
    CosineAffinity,
    FixedGroups,
    GradTAG,
    RandomGroups,
    TaskGrouper,
)
from mtorl.trainers.seeding import numpy_stream
from mtorl.trainers.sharing import Shared

SEEDS = 10
SETS, SET_SIZE = 24, 5
"""Sets of tasks that are fine-tuned on, and tasks in each."""
STEPS, RATE, WINDOWS = 300, 1e-4, 51
"""Of a fine-tuning, whose learning rate falls to zero."""
REPEATS = 3
"""Of a prediction, on other windows; the median of their times counts."""
JUDGED = 1024
"""Windows of each task that losses after fine-tuning are measured on."""


def planted() -> dict[str, object]:
    """In how many seeds each grouper recovers the families, and how long it takes."""
    families = [list(PointReach().task_names[:4]), list(PointReach().task_names[4:])]
    ways: dict[str, Callable[[], TaskGrouper]] = {
        "AgreementKMeans": AgreementKMeans,
        "CosineAffinity": CosineAffinity,
        "DMTG": DMTG,
        "GradTAG": GradTAG,
        "RandomGroups": RandomGroups,
        "FixedGroups": lambda: FixedGroups(families),
    }
    found: dict[str, list[bool]] = {name: [] for name in ways}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        data = collect(PointReach(), Path(folder) / "data", "expert", episodes=20, workers=0, quiet=True)
        for seed in range(SEEDS):
            run = _short_run(str(data.path), f"{folder}/run{seed}", seed)
            for name, make in ways.items():
                start = time.process_time()
                labels = run.group(make(), 2).labels
                seconds[name].append(time.process_time() - start)
                found[name].append(labels == (0, 0, 0, 0, 1, 1, 1, 1))
    return {
        "seeds": SEEDS,
        "goal": "every learned grouper recovers the two families in all seeds",
        "recovered": {name: sum(hits) for name, hits in found.items()},
        "processor_seconds": {name: round(float(np.median(each)), 2) for name, each in seconds.items()},
    }


def _short_run(data: str, out: str, seed: int) -> Run:
    """A policy that is not told its task, after 60 steps."""
    return train(
        data=data,
        out=out,
        agent={"class_path": "BehaviorCloning", "init_args": {"hidden": [64, 64], "task_identity": "none"}},
        optimizer={"lr": 0.01, "warmup": 0},
        schedule={"steps": 60, "evaluate_every": 0, "save_every": 0, "monitor_every": 0},
        evaluate_goals=2,
        workers=0,
        threads=1,
        seed=seed,
        quiet=True,
    )


class RandomWindows:
    """Stands for a sampler: random windows of fifty tasks.

    Args:
        tasks: T.
        windows: Of each task in a batch.
    """

    def __init__(self, tasks: int, windows: int) -> None:
        self.tasks, self.windows = tasks, windows
        self.generator = torch.Generator().manual_seed(0)

    def draw(self) -> TaskBatch:
        """The next batch."""
        shape = (self.tasks, self.windows, 1)
        return TaskBatch(
            observations=torch.randn(*shape, 39, generator=self.generator),
            actions=torch.rand(*shape, 4, generator=self.generator) * 2 - 1,
            rewards=torch.zeros(shape),
            returns_to_go=torch.zeros(shape),
            timesteps=torch.zeros(shape, dtype=torch.long),
            valid=torch.ones(shape, dtype=torch.bool),
            task_ids=torch.arange(self.tasks),
        )


def cost() -> dict[str, object]:
    """Time and memory of GradTAG with its defaults on fifty tasks and the network of bc_mt50.yaml."""
    agent = BehaviorCloning(make_spec(50), hidden=(400, 400, 400))
    start, processor = time.perf_counter(), time.process_time()
    found = GradTAG().fit(PhaseFunctions(agent), Shared(), RandomWindows(50, 64), 5)  # type: ignore[arg-type]
    return {
        "goals": {"minutes": 15, "peak_gigabytes": 4},
        "parameters": sum(value.numel() for value in agent.parameters()),
        "minutes": round((time.perf_counter() - start) / 60, 2),
        "processor_minutes": round((time.process_time() - processor) / 60, 2),
        "peak_gigabytes": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "method": found.method,
    }


def ranks(folder: str) -> dict[str, object]:
    """Rank correlations of predicted with real losses after fine-tuning on sets of tasks, and of two fine-tunings."""
    run = Run(folder)
    experiment = run.configuration.experiment()
    stores, _ = experiment.open_data()
    agent, _ = run._trained(experiment, run.checkpoints().load("last"))
    functions, tasks = PhaseFunctions(agent), len(agent.spec.task_names)
    sets = _sets(tasks)
    fixed = TaskSampler(stores, agent.spec.task_names, JUDGED, agent.window, numpy_stream(0, "judged")).draw()
    real, seconds, moved = [], [], 0.0
    for repeat in range(2):
        losses = []
        for number, chosen in enumerate(sets):
            generator = numpy_stream(repeat, f"set {number}")
            names = agent.spec.task_names
            sampler = TaskSampler(stores, names, WINDOWS, agent.window, generator)
            start = time.process_time()
            tuned, moved = _fine_tuned(agent, sampler, chosen)
            seconds.append(time.process_time() - start)
            with torch.no_grad():
                losses.append(tuned.eval()(0, fixed).values)
        real.append(torch.stack(losses).double())
    retest = _correlation(real[0], real[1])
    probe = experiment.build_probe(stores, agent)
    found = {
        f"{windows} windows, {moved_name}": _prediction(
            GradTAG(windows, moved=moved_name), functions, probe, sets, real
        )
        for windows, moved_name in ((64, "last_half"), (256, "last_half"), (512, "last_half"), (512, "all"))
    }
    whole = sum(seconds) / 2
    return {
        "goal": "correlation at least 0.8 of the retest's, at 10 % of the compute at most",
        "tasks": tasks,
        "sets": SETS,
        "set_size": min(SET_SIZE, tasks // 2),
        "fine_tuning": {"steps": STEPS, "lr": RATE, "windows": WINDOWS, "share_moved": round(moved, 4)},
        "retest_correlation": round(retest, 3),
        "fine_tuning_processor_seconds": round(whole, 1),
        "predicted": {
            name: {**it, "of_retest": round(it["correlation"] / retest, 3), "compute": round(it["seconds"] / whole, 4)}
            for name, it in found.items()
        },
    }


def _sets(tasks: int) -> Tensor:
    """Sets of tasks, bool `[m, T]`."""
    ranks = torch.rand(SETS, tasks, generator=torch.Generator().manual_seed(1)).argsort(1)
    chosen = ranks[:, : min(SET_SIZE, tasks // 2)]
    return torch.zeros(SETS, tasks, dtype=torch.bool).scatter_(1, chosen, True)


def _fine_tuned(agent: Agent, sampler: TaskSampler, chosen: Tensor) -> tuple[Agent, float]:
    """A copy after training on a set of tasks, bool `[T]`, and how far its parameters moved, as a share."""
    tuned, rows = copy.deepcopy(agent).train(), chosen.nonzero()[:, 0]
    optimizer = torch.optim.Adam(tuned.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        optimizer.zero_grad()
        tuned(0, sampler.draw().select(rows)).values.mean().backward()
        optimizer.step()
        schedule.step()
    before, after = (torch.cat([it.flatten() for it in which.parameters()]) for which in (agent, tuned))
    return tuned, float(((after - before).norm() / before.norm()).detach())


def _prediction(
    grouper: GradTAG, functions: PhaseFunctions, probe: TaskSampler, sets: Tensor, real: list[Tensor]
) -> dict[str, float]:
    """How well a grouper's linearisation predicts real losses, `[m, T]` of each repeat."""
    seconds, correlations = [], []
    for _ in range(REPEATS):
        start = time.process_time()
        losses = grouper.linearise(functions, Shared(), probe)
        moves = losses.moves(sets, losses.choose_ridge(sets, grouper.limit))
        predicted = losses.after(moves)
        seconds.append(time.process_time() - start)
        correlations += [_correlation(predicted, each) for each in real]
    return {
        "correlation": round(float(np.mean(correlations)), 3),
        "share_moved": round(float(losses.lengths(moves).median()), 4),
        "seconds": round(float(np.median(seconds)), 1),
    }


def _correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's, over sets, of the losses `[m, T]` of each task; the mean over tasks."""
    pairs = zip(one.T.numpy(), other.T.numpy(), strict=True)
    return float(np.mean([spearmanr(left, right).statistic for left, right in pairs]))


def main() -> None:
    """Measures one part and writes it to results/groupers.json."""
    torch.set_num_threads(1)
    warnings.simplefilter("always")
    part, *rest = sys.argv[1:] or ["planted"]
    path = RESULTS / "groupers.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    parts = {name: kept[name] for name in ("planted", "cost", "ranks") if name in kept}
    found = {"planted": planted, "cost": cost, "ranks": ranks}[part](*rest)  # type: ignore[operator]
    save("groupers", {**parts, part: {"commit": commit(), **found}})


if __name__ == "__main__":
    main()
