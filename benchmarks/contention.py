"""Training steps per second on a machine that is idle, and on one where two other processes are busy.

    python benchmarks/contention.py        # about five minutes

A multi-layer perceptron as in `configs/bc_mt10.yaml` and decision transformers of 0.6 and 5 million parameters, on one
thread and on two; then the preset itself, by `mtorl train`. Idle threads wait passively, as `import mtorl` asks of
them, or as the runtime does by itself: there torch is imported first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from common import make_agent, make_batch, make_spec, save

from mtorl.agents import Agent, BehaviorCloning
from mtorl.datasets.store import Episode
from mtorl.datasets.writer import StoreWriter
from mtorl.envs import MetaWorld
from mtorl.trainers.balancers import Equal
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.logs import read_log
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.sharing import Shared
from mtorl.trainers.update import MultiTaskUpdate

TASKS, LENGTH = 10, 500
PRESET = Path(__file__).parent.parent / "configs" / "bc_mt10.yaml"
WAYS = {"1 thread": (1, True), "2 threads": (2, True), "2 threads, not passive": (2, False)}
SPIN = "while True: pass"
GOAL = 0.4
"""Share of its speed that the preset keeps beside two busy processes."""


def models() -> dict[str, tuple[Agent, int]]:
    """Agents, each with the windows per task of its batch."""
    return {
        "MLP": (BehaviorCloning(make_spec(TASKS), hidden=(400, 400, 400)), 51),
        "DT 0.6 M": (make_agent(TASKS, 128, 3, 4), 4),
        "DT 5 M": (make_agent(TASKS, 256, 6, 8), 4),
    }


def measure(seconds: float, threads: int) -> dict[str, float]:
    """Steps per second of every model in this process."""
    torch.set_num_threads(threads)
    found = {}
    for name, (agent, windows) in models().items():
        batch, functions, member = make_batch(TASKS, windows, agent.window), PhaseFunctions(agent), Equal()
        member.init(TASKS, functions.space, torch.Generator().manual_seed(0))
        optimizer = PhaseOptimizer(OptimizerSettings(), agent, [], agent.task_rows(), 1000)
        steps, began = -1, 0.0  # the first step is not counted
        while steps < 2 or time.perf_counter() - began < seconds:
            member.step(MultiTaskUpdate(functions, optimizer, batch, Shared(), 0, 1000, seed=0))
            steps += 1
            began = time.perf_counter() if steps == 0 else began
        found[name] = steps / (time.perf_counter() - began)
    return found


def python(code: str, passive: bool, *arguments: object) -> str:
    """What a process prints that imports mtorl before torch, as its commands do, or after it."""
    settings = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
    plain = {name: value for name, value in os.environ.items() if name not in settings}
    command = [sys.executable, "-c", f"import {'mtorl' if passive else 'torch'}; {code}", *map(str, arguments)]
    return subprocess.run(command, env=plain, check=True, stdout=subprocess.PIPE, text=True, cwd=PRESET.parent).stdout


def measured(seconds: float, threads: int, passive: bool) -> dict[str, float]:
    """`measure` in a process of its own."""
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import contention as c, json; "
    code += f"print(json.dumps(c.measure({seconds}, {threads})))"
    return json.loads(python(code, passive))


def preset(seconds: float, data: Path, passive: bool) -> float:
    """Steps per second of `mtorl train` with its own number of threads, or with two, which do not wait passively."""
    with tempfile.TemporaryDirectory() as folder:
        steps = ["--schedule.steps", int(20 * seconds), "--schedule.log_every", 10, "--schedule.evaluate_every", 0]
        options = ["--out", f"{folder}/run", "--data", data, *steps, *([] if passive else ["--threads", 2])]
        code = "import sys; from mtorl.commands.main import main; sys.exit(main(sys.argv[1:]))"
        python(code, passive, "train", "--config", PRESET, *options, "--quiet", "true", "--workers", 0)
        log = [entry for entry in read_log(Path(folder) / "run") if entry["kind"] == "training"]
    return (log[-1]["step"] - log[0]["step"]) / (log[-1]["time"] - log[0]["time"])


def write(path: Path) -> None:
    """Random episodes of MT10's dimensions: how fast training is does not depend on what is in them."""
    draw, suite, flags = np.random.default_rng(0), MetaWorld("MT10"), np.zeros(LENGTH, dtype=bool)
    made = (
        Episode(
            name,
            draw.random((LENGTH + 1, 39), dtype=np.float32),
            draw.random((LENGTH, 4), dtype=np.float32),
            draw.random(LENGTH, dtype=np.float32),
            flags,
            flags,
            np.arange(LENGTH) == LENGTH - 1,
        )
        for name in suite.task_names
        for _ in range(4)
    )
    description = (suite.describe(), suite.task_names, (39, 4), LENGTH, suite.versions(), {"split": "train"})
    StoreWriter(path, *description).write(made)


@contextmanager
def busy(count: int) -> Iterator[None]:
    """That many processes that never wait."""
    others = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.terminate()
            other.wait()


def main() -> None:
    """Measures all combinations and writes results/contention.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="Of each combination.")
    seconds = parser.parse_args().seconds
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "data")
        for others in (0, 2):
            with busy(others):
                for way, (threads, passive) in WAYS.items():
                    for model, rate in measured(seconds, threads, passive).items():
                        found.setdefault(model, {}).setdefault(way, []).append(round(rate, 2))
                for way, passive in (("as it is", True), ("2 threads, not passive", False)):
                    rate = preset(seconds, Path(folder) / "data", passive)
                    found.setdefault("mtorl train, bc_mt10.yaml", {}).setdefault(way, []).append(round(rate, 2))
    kept = found["mtorl train, bc_mt10.yaml"]["as it is"]
    save(
        "contention",
        {
            "steps_per_second": "[alone, beside two busy processes]",
            "results": found,
            "goals": {"preset_kept": GOAL},
            "preset_kept": round(kept[1] / kept[0], 2),
        },
    )
    print(f"{'steps per second':50}{'alone':>10}{'beside 2':>10}{'kept':>8}")
    for model, ways in found.items():
        for way, (alone, beside) in ways.items():
            print(f"{model + ', ' + way:50}{alone:10.1f}{beside:10.1f}{beside / alone:8.0%}")


if __name__ == "__main__":
    main()
