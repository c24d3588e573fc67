"""One policy for 160 tasks of suites with different spaces: what a step, memory and the page cost beside MT10 and MT50.

    python benchmarks/union.py --quick        # 20 steps each; prints, and keeps nothing in results
    python benchmarks/union.py                # 2,000 steps each

The union: MT50 (scripted experts), 40 CheetahVel, 50 AntDir, both CheetahDir, and 18 tasks of MuJoCo locomotion and
control. Nobody wrote experts for those without an arm: their episodes are random actions, good for what is measured
here (step time, memory, size of the page, and that everything works together) and for no policy. Behavior cloning with
PCGrad, and with RandomMasks, 16 windows of each task; one held-out goal is played. A pass for every task is linear in
tasks; the inner products that PCGrad asks for grow with the square of their number. Whatever is finished is kept in
`--out`, and the same call continues; steps are timed anew.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import save

from mtorl.envs import AntDir, CheetahDir, CheetahVel, Gymnasium, MetaWorld, Suite
from mtorl.envs.collect import collect

BODIES = {"HalfCheetah": 3, "Hopper": 4, "Walker2d": 3, "Ant": 3}
"""How many tasks there are of each: several, as where data are of several policies."""
OTHERS = ("Swimmer", "Reacher", "Pusher", "InvertedPendulum", "InvertedDoublePendulum")
TIMED = 60
"""Steps by which a step is timed."""
WAYS = {"pcgrad": ["--balancer", "PCGrad"], "random_masks": ["--sharing", "RandomMasks"]}


def locomotion() -> dict[str, Gymnasium]:
    """A suite of each body."""
    counts = BODIES | dict.fromkeys(OTHERS, 1)
    return {
        name: Gymnasium({f"{name.lower()}-{number}": f"{name}-v5" for number in range(count)}, horizon=200)
        for name, count in counts.items()
    }


def recorded(folder: Path, episodes: int, workers: int) -> dict[str, list[str]]:
    """The data of each set of tasks; recorded if they are not there."""
    suites: dict[str, Suite] = {
        "mt10": MetaWorld("MT10"),
        "mt50": MetaWorld("MT50"),
        "cheetah_vel": CheetahVel(all_tasks=True),
        "cheetah_dir": CheetahDir(),
        "ant_dir": AntDir(all_tasks=True),
        **locomotion(),
    }
    for name, suite in suites.items():
        recipe = "expert" if isinstance(suite, MetaWorld) else "random"
        collect(suite, folder / name, recipe, episodes, workers=workers)  # does nothing where it is finished
    paths = {name: str(folder / name) for name in suites}
    alone = {name: [paths.pop(name)] for name in ("mt10",)}
    return {**alone, "mt50": [paths["mt50"]], "union": list(paths.values())}


def called(arguments: Sequence[str]) -> tuple[float, float]:
    """Runs a command of mtorl; its seconds and peak memory in megabytes."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "mtorl", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"mtorl {' '.join(arguments)} failed.")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def train_arguments(run: Path, data: Sequence[str], way: Sequence[str], steps: int) -> list[str]:
    """Of `mtorl train`, for a new run."""
    options = {"out": run, "windows": 16, "threads": 1, "union": "true", "schedule.steps": steps}
    options |= {"schedule.evaluate_every": 0, "schedule.save_every": max(steps // 4, 1), "schedule.log_every": 10}
    return ["--data", *data, *way, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]


def trained(run: Path, data: Sequence[str], way: Sequence[str], steps: int) -> float:
    """Trains, or goes on; returns the peak memory in megabytes."""
    kept = run.with_suffix(".json")
    known = json.loads(kept.read_text())["peak_MB"] if kept.exists() else 0.0
    if known:
        return float(known)
    begun = (run / "config.yaml").exists()
    _, peak = called(["train", *(["--resume", str(run)] if begun else train_arguments(run, data, way, steps))])
    kept.write_text(json.dumps({"peak_MB": peak}))
    return peak


def step_ms(run: Path, data: Sequence[str], way: Sequence[str]) -> float:
    """Median milliseconds of a step, by the log of a short training of its own, when nothing else is going on."""
    short = run.with_name(f"{run.name}_timed")
    shutil.rmtree(short, ignore_errors=True)
    called(["train", *train_arguments(short, data, way, TIMED), "--schedule.monitor_every", "0", "--quiet", "true"])
    rows = [json.loads(line) for line in (short / "log.jsonl").read_text().splitlines()]
    return 1e3 * statistics.median(1 / row["steps_per_second"] for row in rows if row.get("steps_per_second"))


def measured(run: Path, data: Sequence[str], way: Sequence[str], steps: int, workers: int) -> dict[str, Any]:
    """Trains, plays and reports; what that costs but for time."""
    peak = trained(run, data, way, steps)
    called(["evaluate", str(run), "--goals", "1", "--workers", str(workers), "--quiet", "true"])
    called(["report", str(run)])
    spec = json.loads((run / "data_spec.json").read_text())
    return {
        "tasks": len(spec["task_names"]),
        "observation_dim": spec["observation_dim"],
        "action_dim": spec["action_dim"],
        "peak_MB": round(peak),
        "page_kB": round((run / "report.html").stat().st_size / 1000),
    }


def main() -> None:
    """Measures all of it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20 steps")
    parser.add_argument("--out", type=Path, default=Path("runs/union"))
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    steps, folder = (20 if arguments.quick else 2000), arguments.out
    data = recorded(folder / "data", 2, arguments.workers)
    runs = {way: {name: folder / f"{name}_{way}_{steps}" for name in data} for way in WAYS}
    found = {
        way: {name: measured(run, data[name], WAYS[way], steps, arguments.workers) for name, run in each.items()}
        for way, each in runs.items()
    }
    # together and last, so that whoever has a busy machine can repeat them on a quiet one
    for way, each in runs.items():
        for name, run in each.items():
            found[way][name]["step_ms"] = round(step_ms(run, data[name], WAYS[way]), 2)
    growth = {
        way: {
            measure: round(rows["union"][measure] / rows["mt50"][measure], 2)
            for measure in ("step_ms", "peak_MB", "page_kB")
        }
        for way, rows in found.items()
    }
    content = {"steps": steps, "windows": 16, "goal": "at most 3.2 times MT50: 160 tasks to 50", "results": found}
    content |= {"union_to_mt50": growth}
    if arguments.quick:
        print(json.dumps(content, indent=1))
    else:
        save("union", content)


if __name__ == "__main__":
    main()
