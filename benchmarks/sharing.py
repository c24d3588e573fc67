"""What ways of sharing, heads and branches cost: a training step beside that of plain training.

    python benchmarks/sharing.py --threads 1          # about two minutes

Behavior cloning with three layers of 400 on 10 tasks with 51 windows each, as `configs/bc_mt10.yaml`, on the CPU. Whole
moves are timed one after the other in rounds: losses, gradients, the optimizer and what follows it. Each case names
what it is compared with: `loop`, the gradients of single tasks and their mean, or `pass`, one pass for all tasks.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=40)
parser.add_argument("--only", nargs="*", help="names of cases")
ARGUMENTS = parser.parse_args()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(ARGUMENTS.threads)  # before numpy and torch are loaded

import json  # noqa: E402

import torch  # noqa: E402
from common import RESULTS, make_batch, make_spec, save  # noqa: E402

from mtorl.agents import BehaviorCloning  # noqa: E402
from mtorl.agents.heads import SmallTowers, VariationalHeads  # noqa: E402
from mtorl.agents.networks import DMTG  # noqa: E402
from mtorl.trainers.balancers import Balancer, Equal, PCGrad  # noqa: E402
from mtorl.trainers.optimizer import OptimizerSettings  # noqa: E402
from mtorl.trainers.phase_trainer import PhaseTrainer, phase_trainers  # noqa: E402
from mtorl.trainers.sharing import (  # noqa: E402
    CrossLearning,
    ParetoManifold,
    RandomMasks,
    Shared,
    Sharing,
    SoftMasks,
)
from mtorl.trainers.update import MultiTaskUpdate  # noqa: E402

TASKS, WINDOWS, HIDDEN = 10, 51, (400, 400, 400)


class TaskByTask(Balancer):
    """Descends the mean of the gradients of single tasks: a loop without any balancing."""

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """See `Balancer.step`."""
        return update.descend(update.gradients().pulled_back.mean(0))


WARM = 20
"""Moves before anything is timed: until then all tasks have the same parameters, which is cheap."""


@dataclass(frozen=True)
class Case:
    """A way of training.

    Attributes:
        sharing: Makes what tasks share.
        balancer: Makes the balancer.
        agent: Options of the agent.
        beside: The case that it is compared with; none for these themselves.
        units: By how much more it may cost: the ratio is divided by it.
        goal: The largest ratio.
    """

    sharing: Callable[[], Sharing] = Shared
    balancer: Callable[[], Balancer] = Equal
    agent: dict[str, Any] = field(default_factory=dict)
    beside: str | None = None
    units: int = 1
    goal: float | None = None


CASES = {
    "pass": Case(),
    "loop": Case(balancer=TaskByTask),
    "loop_pcgrad": Case(balancer=PCGrad),
    "cross_learning": Case(CrossLearning, beside="loop", goal=1.6),
    "cross_learning_pcgrad": Case(CrossLearning, PCGrad, beside="loop_pcgrad", goal=1.6),
    "cross_learning_projected": Case(lambda: CrossLearning(variant="projected"), beside="loop", goal=1.6),
    "pareto_manifold_1_point": Case(lambda: ParetoManifold(samples=1), beside="pass", goal=1.5),
    "pareto_manifold_2_points": Case(lambda: ParetoManifold(samples=2), beside="pass", units=2, goal=1.5),
    "pareto_manifold_ordered": Case(
        lambda: ParetoManifold(samples=2, regularisation=1.0), beside="pass", units=2, goal=1.5
    ),
    "pareto_manifold_full": Case(lambda: ParetoManifold(None, samples=2), beside="pass", units=2),
    "random_masks": Case(RandomMasks, TaskByTask, beside="loop"),
    "soft_masks": Case(SoftMasks, TaskByTask, beside="random_masks"),
    "heads_of_tasks": Case(agent={"output_heads": "per_task"}, beside="pass"),
    "variational_heads": Case(agent={"head": VariationalHeads}, beside="pass", goal=1.15),
    "variational_heads_loop": Case(balancer=TaskByTask, agent={"head": VariationalHeads}, beside="loop", goal=1.15),
    "small_towers": Case(agent={"head": SmallTowers}, beside="pass", goal=1.15),
    "small_towers_loop": Case(balancer=TaskByTask, agent={"head": SmallTowers}, beside="loop", goal=1.15),
    "dmtg_4_branches": Case(agent={"network": DMTG, "output_heads": "per_task"}, beside="heads_of_tasks", goal=3.0),
}
"""By name; a case comes after the one that it is compared with."""


def prepared(case: Case) -> PhaseTrainer:
    """What makes the moves of a case."""
    torch.manual_seed(0)
    agent = BehaviorCloning(make_spec(TASKS), **{"hidden": HIDDEN, **case.agent})
    settings = OptimizerSettings(warmup=0)
    (phase,) = phase_trainers(agent, case.balancer(), case.sharing(), settings, 100_000, seed=0, execution="loop")
    return phase


def race(phases: dict[str, PhaseTrainer], rounds: int) -> dict[str, float]:
    """Median seconds of a move of each."""
    batch, times = make_batch(TASKS, WINDOWS, 1), {name: list[float]() for name in phases}
    for step in range(WARM + rounds):
        for name, phase in phases.items():
            started = time.perf_counter()
            phase.move(phase.update(batch, step))
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[WARM:]) for name, values in times.items()}


def main() -> None:
    """Runs the cases and writes results/sharing_N_threads.json; cases that are not run keep their old results."""
    torch.set_num_threads(ARGUMENTS.threads)
    name = f"sharing_{ARGUMENTS.threads}_threads"
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text())["cases"] if path.exists() else {}
    chosen = ARGUMENTS.only or list(CASES)
    wanted = {*chosen}
    for it in reversed(CASES):
        if it in wanted and (other := CASES[it].beside):
            wanted.add(other)
    seconds = race({it: prepared(case) for it, case in CASES.items() if it in wanted}, ARGUMENTS.rounds)
    for it, value in seconds.items():
        case = CASES[it]
        found[it] = {"milliseconds": round(1000 * value, 2)}
        if case.beside:
            found[it] |= {"beside": case.beside, "ratio": round(value / seconds[case.beside] / case.units, 3)}
            found[it] |= {"for_each_of": case.units, "goal": case.goal}
    save(name, {"threads": ARGUMENTS.threads, "cases": {it: found[it] for it in CASES if it in found}})


if __name__ == "__main__":
    main()
