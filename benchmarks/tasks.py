"""What grows with the number of tasks: training steps, masks, checkpoints, evaluation, the pages, and memory.

    python benchmarks/tasks.py                # minutes, on one thread
    python benchmarks/tasks.py --tasks 10 160 # these only; prints, and keeps nothing in results

Behavior cloning with three layers of 128 on 10, 50, 160 and 500 tasks of PointReach, 16 windows of each in a batch, an
embedding for the task: one-hot vectors would widen the first layer. Processor seconds, each count of tasks in a process
of its own. What is per task is compared with 10 tasks. Balancers that look at all pairs of tasks grow faster: PCGrad's
Gramian; the weights of UPGrad have a row of their own.
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy and torch are loaded

import resource

import torch
from common import save

import mtorl
from mtorl.agents import BehaviorCloning
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.reports.comparison import compare
from mtorl.reports.tables import show_store
from mtorl.runs.run import Run
from mtorl.runs.sweep import Sweep
from mtorl.trainers.balancers import Balancer, Equal, PCGrad, UPGrad
from mtorl.trainers.checkpoint import CheckpointFolder
from mtorl.trainers.logs import NoLog
from mtorl.trainers.offline import OfflineTrainer
from mtorl.trainers.optimizer import OptimizerSettings
from mtorl.trainers.schedule import Schedule
from mtorl.trainers.sharing import HarmonyMasks, RandomMasks, Shared, Sharing

TASKS = (10, 50, 160, 500)
HIDDEN, WINDOWS, EPISODES, GOALS = (128, 128, 128), 16, 4, 2
CASES: dict[str, tuple[Callable[[], Balancer], Callable[[], Sharing]]] = {
    "Equal": (Equal, Shared),
    "PCGrad": (PCGrad, Shared),
    "RandomMasks": (Equal, RandomMasks),
    "HarmonyMasks": (Equal, HarmonyMasks),
}
GOALS_OF = {"per_task_of_160_over_10": 1.1, "upgrad_weights_of_160_milliseconds": 100}


def seconds(action: Callable[[], object], least: float = 0.6, warm: int = 1) -> float:
    """Median processor seconds of a call, of at least three calls."""
    for _ in range(warm):
        action()
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        began = time.process_time()
        action()
        times.append(time.process_time() - began)
    return statistics.median(times)


def experiment(store: EpisodeStore, out: Path, case: str, steps: int) -> mtorl.Experiment:
    """A run of a case."""
    balancer, sharing = CASES[case]
    return mtorl.Experiment(
        data=[str(store.path)],
        out=str(out),
        agent=partial(BehaviorCloning, hidden=HIDDEN, task_identity="embed"),
        balancer=balancer(),
        sharing=sharing(),
        optimizer=OptimizerSettings(),
        schedule=Schedule(steps=steps, log_every=5, monitor_every=0, evaluate_every=0, save_every=0),
        windows=WINDOWS,
        threads=1,
        workers=0,
        quiet=True,
    )


def trainer_of(store: EpisodeStore, folder: Path, case: str) -> OfflineTrainer:
    """Everything that trains a case, without a run folder."""
    chosen = experiment(store, folder / case, case, 100_000)
    _, spec = chosen.open_data()
    checkpoints = CheckpointFolder(folder / case / "checkpoints")
    return chosen.build_trainer([store], spec, NoLog(), checkpoints, lambda policy: None, {})  # type: ignore[arg-type, return-value]


def training(store: EpisodeStore, folder: Path) -> dict[str, float]:
    """Seconds of steps of all cases, of a change of masks, and of a checkpoint with its bytes."""
    found: dict[str, float] = {}
    for case in CASES:
        trainer = trainer_of(store, folder, case)
        found[f"step, {case}"] = seconds(trainer.advance, warm=2)
        if case == "HarmonyMasks":
            found |= _of_masks(trainer)
    return found


def _of_masks(trainer: OfflineTrainer) -> dict[str, float]:
    (phase,) = trainer.phases
    refresh = seconds(lambda: phase.change_sharing(trainer.probe, 0), warm=0)
    state = trainer.state_dict()
    saving = seconds(lambda: trainer.checkpoints.save(1, state))
    size = trainer.checkpoints.file(1).stat().st_size
    return {"masks_refresh": refresh, "checkpoint": saving, "checkpoint_bytes": size}


def upgrad(tasks: int) -> float:
    """Seconds of UPGrad's weights for gradients that partly conflict."""
    rows = torch.randn(tasks, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows += 0.1 * rows.mean(0)
    member, gramian = UPGrad(), rows @ rows.T
    member.init(tasks, None, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    return seconds(lambda: member.weights(gramian), least=0.3)


def pages(store: EpisodeStore, folder: Path) -> dict[str, float]:
    """Seconds of an episode of evaluations, and of the pages of two runs with their bytes."""
    runs: dict[str, Run] = {}
    protocol, episodes = Protocol(goals=GOALS), GOALS * len(store.task_names)
    began = time.process_time()
    for case in ("Equal", "RandomMasks"):
        runs[case] = mtorl.train(experiment(store, folder / f"run_{case}", case, 10))
    found = {"runs_of_10_steps": time.process_time() - began}
    began = time.process_time()
    for run in runs.values():
        run.evaluate(protocol, workers=0, quiet=True)
    found["episode"] = (time.process_time() - began) / len(runs) / episodes
    found["report"] = seconds(lambda: mtorl.report(list(runs.values()), out=folder / "report.html"), least=0)
    found["report_bytes"] = (folder / "report.html").stat().st_size
    methods = {name: [[run.folder]] for name, run in runs.items()}
    bases = {"Equal": dict.fromkeys(methods, "Equal")}
    sweep = Sweep(folder, methods, protocol, bases)
    found["comparison"] = seconds(lambda: compare(sweep), least=0)
    found["comparison_bytes"] = (folder / "comparison.html").stat().st_size
    found["info"] = seconds(lambda: show_store(EpisodeStore(store.path)), least=0)
    return found


def measure(tasks: int) -> dict[str, float]:
    """All of one number of tasks, in this process; the tables for the terminal go nowhere."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()):
        folder = Path(name)
        began = time.process_time()
        store = collect(PointReach(tasks), folder / "data", "expert", EPISODES, workers=0, quiet=True)
        found = {"recorded_episode": (time.process_time() - began) / tasks / EPISODES}
        before = _peak()
        found |= training(store, folder)
        found["upgrad_weights"] = upgrad(tasks)
        found["training_peak_megabytes"] = _peak() - before
        found |= pages(store, folder)
        found["peak_megabytes"] = _peak()
    return found


def _peak() -> float:
    """Megabytes that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def alone(tasks: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--one", str(tasks)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def growth(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """What a task costs among so many, over what it costs among the fewest."""
    first, *others = found
    shared = {"recorded_episode", "episode"}  # are per episode
    return {
        many: {
            name: round(value / found[first][name] / (1 if name in shared else int(many) / int(first)), 2)
            for name, value in found[many].items()
        }
        for many in others
    }


def main() -> None:
    """Measures all numbers of tasks and writes results/tasks.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=TASKS)
    parser.add_argument("--one", type=int, help="Measure this number of tasks in this process, and print it.")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    found = {str(tasks): alone(tasks) for tasks in arguments.tasks}
    content = {
        "seconds_and_bytes": {
            tasks: {name: float(f"{it:.4g}") for name, it in row.items()} for tasks, row in found.items()
        },
        "per_task_over_fewest": growth(found),
        "goals": GOALS_OF,
    }
    if tuple(arguments.tasks) == TASKS:
        save("tasks", content)
    else:
        print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
