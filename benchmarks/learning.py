"""What the presets learn: success on 50 held-out goals per task, over seeds.

    python benchmarks/learning.py bc                    # behavior cloning, MT10, 2 seeds, about 3 minutes
    python benchmarks/learning.py bc_mt50               # behavior cloning, MT50, about 6 minutes a seed
    python benchmarks/learning.py dt_return             # decision transformer, MT10, with and without returns-to-go
    python benchmarks/learning.py dt_action_context     # decision transformer, MT10, with and without past actions

Runs are kept in runs/benchmarks and continued if interrupted. Success is at any step; episodes stop at success.
"""

import argparse
import json
import time
from pathlib import Path

from common import save

from mtorl.envs import MetaWorld
from mtorl.envs.collect import collect
from mtorl.envs.evaluator import EvalReport, Protocol
from mtorl.trainers import Run, train
from mtorl.trainers.logs import read_log

DT = "configs/dt_mt10.yaml"
VARIANTS = {
    "bc": {"bc": ("configs/bc_mt10.yaml", {})},
    "bc_mt50": {"bc_mt50": ("configs/bc_mt50.yaml", {})},
    "dt_action_context": {f"dt_{name}": (DT, {"agent__action_context": name}) for name in ("none", "full", "dropout")},
    "dt_return": {
        "dt_none": (DT, {"agent__action_context": "none"}),
        "dt_no_return": (DT, {"agent__action_context": "none", "agent__return_conditioning": False}),
    },
}


def measure(name: str, config: str, options: dict, seed: int, threads: int) -> dict:
    """Trains and evaluates one run, or reads what is there (delete it after a change of its preset)."""
    folder = Path("runs/benchmarks") / f"{name}-seed{seed}"
    protocol = Protocol("heldout", 50, stop_at_success=True)
    report_path = folder / "evaluations" / "heldout-last-stopped-50.json"
    if not report_path.exists():
        started = time.perf_counter()
        clock = folder.with_suffix(".seconds.json")
        before = json.loads(clock.read_text()) if clock.exists() else 0.0
        try:
            if (folder / "config.yaml").exists():
                run = train(resume=folder)
            else:
                run = train(config, out=folder, seed=seed, threads=threads, schedule__evaluate_every=0, **options)
        finally:  # of all attempts, if one was interrupted
            clock.parent.mkdir(parents=True, exist_ok=True)
            clock.write_text(json.dumps(before + time.perf_counter() - started))
        run.evaluate(protocol)
    report = EvalReport.load(report_path)
    run = Run(folder)
    rates = [row["steps_per_second"] for row in read_log(folder) if row["kind"] == "training"]
    low, high = report.mean_interval()
    return {
        "seed": seed,
        "mean_success": round(report.mean_success, 4),
        "interval": [round(low, 4), round(high, 4)],
        "tasks": {row.task: row.rate for row in report.tasks()},
        "training_seconds": round(json.loads(folder.with_suffix(".seconds.json").read_text()), 1),
        "steps_per_second_median": round(sorted(rates)[len(rates) // 2], 1),
        "threads": threads,
        "parameters": sum(value.numel() for value in run.policy()[0].agent.parameters()),
    }


def main() -> None:
    """Runs all seeds of all variants, seeds outermost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=VARIANTS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.what == "bc_mt50":
        collect(MetaWorld("MT50"), "data/mt50_expert", "expert", episodes=20)
    else:
        collect(MetaWorld("MT10"), "data/mt10_expert", "expert", episodes=40)
    results: dict[str, list[dict]] = {name: [] for name in VARIANTS[arguments.what]}
    for seed in range(arguments.seeds):
        for name, (config, options) in VARIANTS[arguments.what].items():
            results[name].append(measure(name, config, options, seed, arguments.threads))
            save(arguments.what, {"goals_per_task": 50, "results": results})


if __name__ == "__main__":
    main()
