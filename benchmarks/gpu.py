"""Task gradients and training steps on a GPU: one task after the other, all at once, and a summed backward pass.

    python benchmarks/gpu.py          # about two minutes on one NVIDIA GPU

The 5 M decision transformer with 8 windows of 20 steps for each of 10 or 50 tasks. Medians over rounds in which the
variants are timed one after the other; peak memory is that of each variant alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from common import make_agent, make_batch, save

from mtorl.trainers import balancers
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.gradients import gramian
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing
from mtorl.trainers.update import MultiTaskUpdate

METHODS = ("Equal", "PCGrad", "UPGrad", "NashMTL", "ConFIG", "GradDrop")


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


def measure(tasks: int, size: tuple[int, int, int], rounds: int, device: str) -> dict:
    """One number of tasks."""
    agent, batch = make_agent(tasks, *size).to(device), make_batch(tasks, 8).to(device, torch.float32)
    masks = RandomMasks()
    masks.init(agent.phases[0].space, tasks, torch.Generator().manual_seed(0))
    sharings: dict[str, Sharing] = {"": Shared(), ", masks": masks.to(device)}
    parameters = list(agent.parameters())
    ways = {
        "loop": PhaseFunctions(agent, execution="loop"),
        "vmap": PhaseFunctions(agent, execution="vmap"),
        "vmap, 5 tasks at a time": PhaseFunctions(agent, execution="vmap", chunk=5),
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
    optimizer = PhaseOptimizer(OptimizerSettings(), agent, [], agent.task_rows(), 1000)
    steps: dict[str, Callable[[], object]] = {}
    for name in METHODS:
        member = getattr(balancers, name)()
        member.init(tasks, ways["vmap"].space, torch.Generator().manual_seed(0))
        steps[name] = lambda member=member: member.step(
            MultiTaskUpdate(ways["vmap"], optimizer, batch, Shared(), 0, 1000, seed=0)
        )
    trained = race(steps, rounds, device)
    return {
        "parameters": sum(value.numel() for value in parameters),
        "gradients": found,
        "over_summed_backward": {
            name: round(value["ms"] / found["summed backward"]["ms"], 2) for name, value in found.items()
        },
        "step": trained,
        "step_over_equal": {name: round(value["ms"] / trained["Equal"]["ms"], 2) for name, value in trained.items()},
    }


def main() -> None:
    """Measures and writes results/gpu.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, nargs=3, default=(256, 6, 8), help="width, layers, heads")
    arguments = parser.parse_args()
    gpu = torch.cuda.get_device_name() if arguments.device == "cuda" else "no GPU"
    results = {}
    for tasks in (10, 50):
        results[f"T={tasks}"] = measure(tasks, tuple(arguments.size), arguments.rounds, arguments.device)
        save("gpu", {"gpu": gpu, "torch": torch.__version__, **results})


if __name__ == "__main__":
    main()
