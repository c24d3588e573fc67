"""What masks cost: training steps, their changes, memory and rollouts.

    python benchmarks/masks.py --threads 1          # about six minutes

The 5 M decision transformer with 8 windows of 20 steps for each of 10 or 50 tasks, on the CPU. Steps are timed one
after the other in rounds. A change of the masks is timed without the gradients that it is given.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--only", nargs="*", choices=["step", "change", "rest", "rollout"])
parser.add_argument("--change-alone", action="store_true", help="the memory of one change, in a process of its own")
ARGUMENTS = parser.parse_args()
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = str(ARGUMENTS.threads)  # before numpy and torch are loaded

import json  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import RESULTS, make_agent, make_batch, make_spec, save  # noqa: E402

from mtorl.agents import BehaviorCloning  # noqa: E402
from mtorl.agents.base import Agent  # noqa: E402
from mtorl.envs.base import RolloutContext  # noqa: E402
from mtorl.trainers.executions import PhaseFunctions  # noqa: E402
from mtorl.trainers.policy import TaskPolicy  # noqa: E402
from mtorl.trainers.sharing import HarmonyMasks, MagnitudeMasks, RandomMasks, Shared, Sharing  # noqa: E402
from mtorl.trainers.sharing.masks import MovingMasks  # noqa: E402

SIZE = (256, 6, 8)


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


def prepared(member: Sharing, agent: Agent, tasks: int) -> Sharing:
    """A member for an agent's shared parameters."""
    member.init(agent.phases[0].space, tasks, torch.Generator().manual_seed(0))
    return member


def step(rounds: int) -> dict:
    """The gradients of all tasks in a loop, with and without masks."""
    found = {}
    for tasks in (10, 50):
        agent, batch = make_agent(tasks, *SIZE), make_batch(tasks, 8)
        functions = PhaseFunctions(agent, execution="loop")
        members = {"no masks": Shared(), "masks": prepared(RandomMasks(), agent, tasks)}

        def gradients(member: Sharing, functions: PhaseFunctions = functions, batch=batch) -> None:
            functions.gradients(batch, member)
            member.unused(batch.task_ids)

        seconds = race({name: lambda it=it: gradients(it) for name, it in members.items()}, rounds)
        found[f"T={tasks}"] = {
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "masks_over_none": round(seconds["masks"] / seconds["no masks"], 3),
        }
    return found | {"goal": {"masks_over_none": 1.15}}


def changes() -> tuple[dict[str, float], int]:
    """Seconds of one change of 50 masks by each strategy, after the gradients are there; and the agent's size."""
    agent = make_agent(50, *SIZE)
    functions = PhaseFunctions(agent, execution="loop")
    parameters, found = functions.space.select(agent), {}
    gradients = functions.dense_gradients([make_batch(50, 2)], prepared(RandomMasks(), agent, 50))
    members: dict[str, MovingMasks] = {
        "harmony, 100 weights": HarmonyMasks(swap_count=100),
        "harmony, 5 % of the zeros": HarmonyMasks(swap_fraction=0.05),
        "harmony, magnitude": HarmonyMasks(importance="magnitude"),
        "magnitude": MagnitudeMasks(),
    }
    for name, member in members.items():
        prepared(member, agent, 50)
        started = time.perf_counter()
        member.update(parameters, gradients, 0.5)
        found[name] = round(time.perf_counter() - started, 2)
        members[name] = None  # type: ignore[assignment]
    return found, len(functions.space)


def peak_memory() -> float:
    """GB of this process, which is not that of the one that started it (as `getrusage` would say)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1e6, 2)


def change_alone() -> None:
    """One change by harmony, gradients included; prints the peak memory in GB before and after."""
    agent, batch = make_agent(50, *SIZE), make_batch(50, 8)
    functions = PhaseFunctions(agent, execution="loop")
    masks = prepared(HarmonyMasks(), agent, 50)
    before = peak_memory()
    started = time.perf_counter()
    gradients = functions.dense_gradients([batch], masks)
    middle = time.perf_counter()
    masks.update(functions.space.select(agent), gradients, 0.5)
    seconds = time.perf_counter() - middle
    print(
        json.dumps(
            {"peak_GB_before": before, "peak_GB": peak_memory(), "gradients": middle - started, "change": seconds}
        )
    )


def change(rounds: int) -> dict:
    """A change of 50 masks, its peak memory, and the selection of 100 of 5 million values beside torch's."""
    from mtorl.trainers.sharing.selection import lowest

    each = [changes() for _ in range(3)]
    alone = json.loads(
        subprocess.run(
            [sys.executable, __file__, "--change-alone", "--threads", str(ARGUMENTS.threads)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    values = torch.randn(5_000_000)
    select = race(
        {"ours": lambda: lowest(values, 100), "torch.topk": lambda: values.topk(100, largest=False)}, 4 * rounds
    )
    return {
        "parameters": each[0][1],
        "seconds": {name: statistics.median(one[0][name] for one in each) for name in each[0][0]},
        "process_with_gradients": {name: round(value, 2) for name, value in alone.items()},
        "milliseconds_of_selecting_100_of_5M": {name: round(1e3 * value, 2) for name, value in select.items()},
        "goals": {"seconds": 3, "peak_GB": 2.5},
    }


def rest(rounds: int) -> dict:
    """Memory of 50 masks, and their part of a checkpoint."""
    masks = prepared(RandomMasks(), make_agent(50, *SIZE), 50)
    state = masks.state_dict()["_extra_state"]  # as they are, and as they were drawn
    saved = state["masks"].numel() + state["drawn"].numel()
    return {"MB": round(masks.masks.numel() / 1e6, 1), "MB_saved": round(saved / 1e6, 1), "goal_MB": 270}


def rollout(rounds: int) -> dict:
    """Acting for 10 episodes, and what loading a task's parameters costs, once for 10 episodes of up to 500 steps."""
    found = {}
    spec, context = make_spec(10), RolloutContext(np.full(10, 3), np.arange(10))
    observations, rewards = np.zeros((10, 39), np.float32), np.zeros(10, np.float32)

    def play(policy: TaskPolicy) -> None:
        for _ in range(100):
            policy.act(observations, rewards)

    agents: dict[str, Agent] = {"MLP": BehaviorCloning(spec), "transformer": make_agent(10, 128, 3, 4)}
    for name, agent in agents.items():
        policies = {
            "no masks": TaskPolicy(agent, {"policy": Shared()}),
            "masks": TaskPolicy(agent, {"policy": prepared(RandomMasks(), agent, 10)}),
        }
        resets = race({key: lambda it=it: it.reset(context) for key, it in policies.items()}, 5 * rounds)
        seconds = race({key: lambda it=it: play(it) for key, it in policies.items()}, 5 * rounds)
        found[name] = {
            "milliseconds_per_step": {key: round(10 * value, 3) for key, value in seconds.items()},
            "milliseconds_of_loading": {key: round(1000 * value, 2) for key, value in resets.items()},
            "masks_over_none": round(seconds["masks"] / seconds["no masks"], 3),
        }
    return found | {"goal": {"masks_over_none": 1.05}}


def main() -> None:
    """Runs the parts and writes results/masks_N_threads.json; parts that are not run keep their old results."""
    torch.set_num_threads(ARGUMENTS.threads)
    if ARGUMENTS.change_alone:
        return change_alone()
    name = f"masks_{ARGUMENTS.threads}_threads"
    path = RESULTS / f"{name}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    parts = {"step": step, "change": change, "rest": rest, "rollout": rollout}
    for part, function in parts.items():
        if not ARGUMENTS.only or part in ARGUMENTS.only:
            found[part] = function(ARGUMENTS.rounds)
            save(name, {"threads": ARGUMENTS.threads, **{part: found[part] for part in parts if part in found}})
    return None


if __name__ == "__main__":
    main()
