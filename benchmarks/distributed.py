"""Training in two processes against one with one thread, on the same machine; bytes sent; equal losses.

    python benchmarks/distributed.py           # a quarter of an hour on two processors that are otherwise idle
    python benchmarks/distributed.py --quick   # a minute, to see that it works

A decision transformer of 5 million parameters and ten tasks, random windows, single precision. One and two processes
take turns; each step is timed by the first process, a median is taken of all, and of the ratios of neighbouring turns.
Bytes are those that the exchanges of one step send by their pattern; where there are as many tasks as processes they
are compared to what a ring sends to sum one gradient.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import make_agent, make_batch, save

from mtorl.trainers.balancers import Balancer, Equal, PCGrad, UPGrad
from mtorl.trainers.optimizer import OptimizerSettings
from mtorl.trainers.phase_trainer import phase_trainers
from mtorl.trainers.processes import joined, leads, leave
from mtorl.trainers.sharing import Shared

BALANCERS: dict[str, type[Balancer]] = {"Equal": Equal, "PCGrad": PCGrad, "UPGrad": UPGrad}
GOALS = {"speed": 1.7, "bytes": 1.1, "losses": 1e-5}
SIZES = {False: (256, 6, 8), True: (64, 2, 4)}


def measure(out: Path, balancer: str, tasks: int, windows: int, steps: int, quick: bool) -> None:
    """Runs in every process: trains for some steps; the first one writes what it saw."""
    torch.set_num_threads(1)
    with joined() as together:
        agent = make_agent(tasks, *SIZES[quick])
        settings = OptimizerSettings(lr=3e-4, warmup=10)
        (phase,) = phase_trainers(agent, BALANCERS[balancer](), Shared(), settings, 1000, seed=0)
        agent.train()
        seconds, losses, sent = [], [], 0
        for step in range(steps):
            torch.manual_seed(step)
            batch = make_batch(tasks, windows)
            sent, start = together.sent if together else 0, time.perf_counter()
            update = phase.update(batch, step)
            phase.move(update)
            seconds.append(time.perf_counter() - start)
            losses.append(update.first_losses.tolist())
        if leads():
            size = sum(it.numel() for it in agent.parameters())
            content = {"seconds": seconds[2:], "losses": losses, "sent": together.sent - sent if together else 0}
            out.write_text(json.dumps(content | {"parameters": size}))


def run(count: int, *options: str) -> dict[str, Any]:
    """Measures in so many processes."""
    start = [sys.executable] if count == 1 else [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    start += [] if count == 1 else ["--nproc-per-node", str(count)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        subprocess.run([*start, __file__, "--out", str(out), *options], env=environment, check=True)
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def compare(balancer: str, steps: int, rounds: int, quick: bool) -> dict[str, Any]:
    """Ten tasks in one and in two processes, in turn."""
    options = ["--balancer", balancer, "--tasks", "10", "--windows", "8", "--steps", str(steps)]
    options += ["--quick"] if quick else []
    ones, twos = [], []
    for _ in range(rounds):
        ones.append(run(1, *options))
        twos.append(run(2, *options))
    medians = [[statistics.median(it["seconds"]) for it in found] for found in (ones, twos)]
    pairs = zip(ones[0]["losses"], twos[0]["losses"], strict=True)
    apart = [abs(a - b) / max(abs(a), 1e-9) for one, two in pairs for a, b in zip(one, two, strict=True)]
    return {
        "parameters": ones[0]["parameters"],
        "seconds_one_process": statistics.median(medians[0]),
        "seconds_two_processes": statistics.median(medians[1]),
        "speed": statistics.median(one / two for one, two in zip(*medians, strict=True)),
        "largest_relative_difference_of_losses": max(apart),
        "steps": steps,
        "megabytes_sent": twos[0]["sent"] / 1e6,
    }


def bytes_sent(balancer: str, count: int, quick: bool) -> float:
    """With as many tasks as processes, beside what a ring sends to sum one gradient."""
    options = ["--balancer", balancer, "--tasks", str(count), "--windows", "2", "--steps", "3"]
    found = run(count, *options, *(["--quick"] if quick else []))
    ring = 2 * found["parameters"] * 4 * (count - 1) / count
    ratio: float = found["sent"] / ring
    return ratio


def main() -> None:
    """Measures, or is one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--balancer", default="PCGrad")
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    chosen = parser.parse_args()
    if chosen.out:
        measure(chosen.out, chosen.balancer, chosen.tasks, chosen.windows, chosen.steps, chosen.quick)
        leave()
        return
    steps, rounds = (6, 1) if chosen.quick else (50, 3)
    content = {name: compare(name, steps, rounds if name == "PCGrad" else 1, chosen.quick) for name in BALANCERS}
    sent = {
        f"{name}, {count} tasks and processes": bytes_sent(name, count, chosen.quick)
        for name in BALANCERS
        for count in (2, 3)
    }
    save("distributed", {"balancers": content, "bytes_beside_a_sum": sent, "goals": GOALS})


if __name__ == "__main__":
    main()
