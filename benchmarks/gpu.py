"""Task gradients and training steps on a GPU: one task after the other, all at once, and a summed backward pass.

    python benchmarks/gpu.py          # about two minutes on one NVIDIA GPU, and some more for what is compiled
    python benchmarks/gpu.py --quick  # a minute on a processor, to see that it works; nothing is written

The 5 M decision transformer with 8 windows of 20 steps for each of 10 or 50 tasks. Medians over rounds in which the
variants are timed one after the other; peak memory is that of each variant alone.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import get_args

import torch
from common import make_agent, make_batch, save

from mtorl.datasets.batch import TaskBatch
from mtorl.trainers import balancers
from mtorl.trainers.computation import Backend, Computation
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import gramian
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing
from mtorl.trainers.update import MultiTaskUpdate

METHODS = ("Equal", "PCGrad", "UPGrad", "NashMTL", "ConFIG", "GradDrop")
GOALS = {"T=10": 1.6, "T=50": 1.3, "Equal, steps per second, over those that are not compiled": 2.0}
"""Gradients of single tasks, compiled, over a summed backward pass that is not; and steps."""


def race(variants: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, dict[str, float]]:
    """Median milliseconds of one call of each variant, and its peak memory in GB."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    memory = {}
    for name, function in variants.items():
        function()
        if device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            function()
            memory[name] = torch.cuda.max_memory_allocated() / 1e9
    for _ in range(rounds):
        for name, function in variants.items():
            _wait(device)
            started = time.perf_counter()
            function()
            _wait(device)
            times[name].append(time.perf_counter() - started)
    return {
        name: {"ms": round(1e3 * statistics.median(values), 2), "peak_GB": round(memory.get(name, 0.0), 2)}
        for name, values in times.items()
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def computations(backend: Backend) -> dict[str, Computation]:
    """What the variants are called."""
    return {
        "vmap": Computation("vmap"),
        "vmap, compiled": Computation("vmap", backend),
        "vmap, bf16": Computation("vmap", None, "bf16"),
        "vmap, compiled, bf16": Computation("vmap", backend, "bf16"),
    }


def measure(tasks: int, size: tuple[int, int, int], rounds: int, device: str, backend: Backend) -> dict:
    """One number of tasks."""
    agent, batch = make_agent(tasks, *size).to(device), make_batch(tasks, 8).to(device, torch.float32)
    masks = RandomMasks()
    masks.init(agent.phases[0].space, tasks, torch.Generator().manual_seed(0))
    sharings: dict[str, Sharing] = {"": Shared(), ", masks": masks.to(device)}
    parameters = list(agent.parameters())
    ways = {
        "loop": PhaseFunctions(agent, execution="loop"),
        "vmap, 5 tasks at a time": PhaseFunctions(agent, execution="vmap", chunk=5),
        **{name: PhaseFunctions(agent, execution=it) for name, it in computations(backend).items()},
    }

    def plain() -> None:
        for parameter in parameters:
            parameter.grad = None
        ways["loop"].losses(batch, Shared()).values.sum().backward()

    variants: dict[str, Callable[[], object]] = {"summed backward": plain}
    for way, functions in ways.items():
        for name, sharing in sharings.items():
            variants[way + name] = lambda functions=functions, sharing=sharing: functions.gradients(batch, sharing)
    rows = ways["loop"].gradients(batch, Shared())[0].pulled_back.clone()
    variants["inner products"] = lambda: gramian(rows)
    found = race(variants, rounds, device)
    trained = race(steps_of(ways, batch), rounds, device)
    return {
        "parameters": sum(value.numel() for value in parameters),
        "gradients": found,
        "over_summed_backward": {
            name: round(value["ms"] / found["summed backward"]["ms"], 2) for name, value in found.items()
        },
        "step": trained,
        "step_over_equal": {name: round(value["ms"] / trained["Equal"]["ms"], 2) for name, value in trained.items()},
        "steps_per_second": {name: round(1e3 / value["ms"], 1) for name, value in trained.items()},
    }


def steps_of(ways: dict[str, PhaseFunctions], batch: TaskBatch) -> dict[str, Callable[[], object]]:
    """Steps of training with each method; with the first two of them also as they are compiled, and in bfloat16."""
    agent, tasks = ways["vmap"].agent, len(batch.tasks)
    optimizer = PhaseOptimizer(OptimizerSettings(), agent, [], agent.task_rows(), 1000)
    found: dict[str, Callable[[], object]] = {}
    for way in (it for it in ways if it.startswith("vmap") and "at a time" not in it):
        for name in METHODS if way == "vmap" else METHODS[:2]:
            member = getattr(balancers, name)()
            member.init(tasks, ways[way].space, torch.Generator().manual_seed(0))
            found[name + way.removeprefix("vmap")] = lambda member=member, way=way: member.step(
                MultiTaskUpdate(ways[way], optimizer, batch, Shared(), 0, 1000, seed=0)
            )
    return found


def main() -> None:
    """Measures and writes results/gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, nargs=3, default=(256, 6, 8), help="width, layers, heads")
    parser.add_argument("--backend", choices=get_args(Backend), default="inductor")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    if chosen.quick:
        torch.set_num_threads(1)
        print(json.dumps(measure(3, (16, 1, 2), 2, "cpu", "aot_eager"), indent=1))
        return
    gpu = torch.cuda.get_device_name() if chosen.device == "cuda" else "no GPU"
    results = {}
    for tasks in (10, 50):
        results[f"T={tasks}"] = measure(tasks, tuple(chosen.size), chosen.rounds, chosen.device, chosen.backend)
        save("gpu", {"gpu": gpu, "torch": torch.__version__, "goals": GOALS, **results})


if __name__ == "__main__":
    main()
