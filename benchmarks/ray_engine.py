"""The same sweep of eight runs by local processes and by Ray's workers on this machine: time, and the same bits.

    python benchmarks/ray_engine.py        # about ten minutes on two idle cores
    python benchmarks/ray_engine.py --quick

Needs the extra `ray`. Ray is started by the sweep, as `mtorl ablate --engine ray` does it, or runs already. The ways
take turns; ratios are between neighbours in time.
"""

import argparse
import hashlib
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
import yaml
from common import save

from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.engines import engine
from mtorl.runs.sweep import ablate

VARY = {"balancer": ["Equal", "PCGrad", "CAGrad", "FAMO"], "seed": [0, 1]}
WORKERS = 2
FILES = ("*/checkpoints/*.pt", "*/evaluations/*.json")
GOAL = 1.15
"""Times the seconds of local processes."""


@contextmanager
def running() -> Iterator[None]:
    """Ray, before the clock runs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=WORKERS, **options)
    try:
        yield
    finally:
        ray.shutdown()


def sweep(way: str, base: dict, goals: int) -> tuple[float, dict[str, str]]:
    """Seconds that it takes, and hashes of what its runs learned and how they were judged, by file."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(chdir(folder))
        Path("base.yaml").write_text(yaml.safe_dump(base))
        if way == "ray, running already":
            stack.enter_context(running())
        began = time.perf_counter()
        with engine("local" if way == "local" else "ray"):
            ablate("base.yaml", VARY, "out", goals=goals, workers=WORKERS, quiet=True)
        seconds = time.perf_counter() - began
        return seconds, {str(file): digest(file) for kind in FILES for file in sorted(Path("out").glob(kind))}


def digest(file: Path) -> str:
    """Hash of all that a checkpoint or a report says, but for what depends on times of day.

    That is the length of the log, and with it the hash of the checkpoint's file.
    """
    if file.suffix == ".json":
        content = json.loads(file.read_text())
        del content["source"]["sha256"]
    else:
        content = torch.load(file, weights_only=True)
        del content["log_bytes"]
    found = hashlib.sha256()
    for name, value in values(content):
        found.update(name.encode())
        found.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    return found.hexdigest()


def values(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested dictionaries and lists, by its place."""
    if isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from values(value, f"{name}.{key}")
    else:
        yield name, content


def main() -> None:
    """Measures all ways in turn and writes results/ray_engine.json."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=10000, help="Of each run.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="100 steps, once; nothing is saved.")
    chosen = parser.parse_args()
    steps, repeats = (100, 1) if chosen.quick else (chosen.steps, chosen.repeats)
    ways = ("local", "ray", "ray, running already")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    learned = []
    with tempfile.TemporaryDirectory() as folder:
        data = collect(PointReach(), Path(folder) / "data", "mixed", episodes=20, workers=0, quiet=True)
        schedule = {"steps": steps, "evaluate_every": 0, "save_every": steps}
        base = {"data": [str(data.path)], "agent": "BehaviorCloning", "schedule": schedule}
        for repeat in range(repeats):
            for way in ways if repeat % 2 == 0 else ways[::-1]:
                taken, hashes = sweep(way, base, 50)
                seconds[way].append(round(taken, 1))
                learned.append(hashes)
    ratios = {
        way: round(statistics.median(a / b for a, b in zip(seconds[way], seconds["local"], strict=True)), 3)
        for way in ways[1:]
    }
    content = {
        "runs": len(learned[0]) // 2,
        "steps": steps,
        "workers": WORKERS,
        "ray_version": ray.__version__,
        "seconds": seconds,
        "times_local": ratios,
        "same_bits": all(it == learned[0] for it in learned),
        "files_compared": len(learned[0]),
        "goals": {"times_local": GOAL, "same_bits": True},
    }
    print(json.dumps(content, indent=1)) if chosen.quick else save("ray_engine", content)


if __name__ == "__main__":
    main()
