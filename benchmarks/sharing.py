"""What ways of sharing with parameters of their own cost: training steps beside plain ones, in one run.

    python benchmarks/sharing.py --threads 1          # about two minutes

Behavior cloning of ten tasks as in `configs/bc_mt10.yaml`, on the CPU: an MLP of three layers of 400 units, 51 windows
of each task. A step is forward, backward, clipping, the optimizer's move and what follows it. Medians over rounds in
which all cases are timed one after the other, so that they share whatever else the machine is doing.

A new case is a line in `CASES`: heads, too, are options of the agent.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=40)
parser.add_argument("--only", nargs="*", default=None, help="names of cases; those they are measured by run as well")
ARGUMENTS = parser.parse_args()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(ARGUMENTS.threads)  # before numpy and torch are loaded

import torch  # noqa: E402
from common import make_batch, make_spec, save  # noqa: E402

from mtorl.agents import Agent, BehaviorCloning  # noqa: E402
from mtorl.datasets.sampler import TaskBatch  # noqa: E402
from mtorl.datasets.spec import DataSpec  # noqa: E402
from mtorl.trainers.balancers import Equal  # noqa: E402
from mtorl.trainers.optimizer import OptimizerSettings  # noqa: E402
from mtorl.trainers.phase_trainer import PhaseTrainer, phase_trainers  # noqa: E402
from mtorl.trainers.sharing import CrossLearning, ParetoManifold, Shared, Sharing  # noqa: E402

TASKS, WINDOWS, STEPS = 10, 51, 1000
SUMMED, LOOPED = "plain", "plain, task by task"
"""What cases are measured by: one backward pass of the sum, and one pass for each task."""


def cloning(spec: DataSpec) -> Agent:
    """The agent of `configs/bc_mt10.yaml`."""
    return BehaviorCloning(spec, hidden=(400, 400, 400), task_identity="onehot")


@dataclass(frozen=True)
class Case:
    """A way to train, and what it may cost.

    Attributes:
        sharing: Which parameters each task computes with.
        agent: Makes the agent.
        beside: The plain step that it is measured by.
        passes: Passes of the whole batch through the network in one step: the ratio is that of each.
        goal: The ratio that is not to be exceeded; None: only measured.
    """

    sharing: Sharing
    agent: Callable[[DataSpec], Agent] = cloning
    beside: str = SUMMED
    passes: int = 1
    goal: float | None = None


CASES = {
    "CrossLearning": Case(CrossLearning(), beside=LOOPED, goal=1.6),
    "CrossLearning, projected": Case(CrossLearning(variant="projected"), beside=LOOPED, goal=1.6),
    "CrossLearning, maskable": Case(CrossLearning(tensors="maskable"), beside=LOOPED, goal=1.6),
    "ParetoManifold": Case(ParetoManifold(), passes=2, goal=1.5),
    "ParetoManifold, 4 points": Case(ParetoManifold(samples=4), passes=4, goal=1.5),
    "ParetoManifold, ordered": Case(ParetoManifold(regularisation=1.0), passes=2, goal=1.5),
    "ParetoManifold, full members": Case(ParetoManifold(rank=None), passes=2),
}


def trainer(case: Case) -> PhaseTrainer:
    """The one phase of a case's agent."""
    torch.manual_seed(0)
    agent = case.agent(make_spec(TASKS))
    settings = OptimizerSettings(weight_decay=1e-4, clip=1.0)
    (found,) = phase_trainers(agent, Equal(), case.sharing, settings, STEPS, 0)
    return found


def whole(case: Case, batch: TaskBatch) -> Callable[[], object]:
    """A training step of a case."""
    mine = trainer(case)
    return lambda: mine.move(mine.update(batch, 0))


def looped(batch: TaskBatch) -> Callable[[], object]:
    """A plain training step with one pass for each task."""
    mine = trainer(Case(Shared()))

    def step() -> None:
        update = mine.update(batch, 0)
        update.descend(update.gradients().pulled_back.mean(0))

    return step


def race(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of one call of each variant."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for function in variants.values():
        function()
    for _ in range(rounds):
        for name, function in variants.items():
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Runs the cases and writes results/sharing_N_threads.json."""
    torch.set_num_threads(ARGUMENTS.threads)
    batch = make_batch(TASKS, WINDOWS, length=1)
    asked = CASES if ARGUMENTS.only is None else {name: CASES[name] for name in ARGUMENTS.only}
    steps = {SUMMED: whole(Case(Shared()), batch), LOOPED: looped(batch)}
    seconds = race(steps | {name: whole(case, batch) for name, case in asked.items()}, ARGUMENTS.rounds)
    found = {
        "threads": ARGUMENTS.threads,
        "milliseconds": {name: round(1e3 * value, 2) for name, value in seconds.items()},
        "cases": {
            name: {
                "over": case.beside,
                "passes": case.passes,
                "ratio_of_a_pass": round(seconds[name] / seconds[case.beside] / case.passes, 2),
                "goal": case.goal,
            }
            for name, case in asked.items()
        },
    }
    save(f"sharing_{ARGUMENTS.threads}_threads", found)


if __name__ == "__main__":
    main()
