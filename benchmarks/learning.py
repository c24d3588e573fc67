"""What the presets learn: success on 50 held-out goals per task, over seeds.

    python benchmarks/learning.py bc                    # behavior cloning, MT10, about 4 minutes
    python benchmarks/learning.py bc_mt50               # behavior cloning, MT50, about 6 minutes a seed
    python benchmarks/learning.py dt_return             # decision transformer, MT10, with and without returns-to-go
    python benchmarks/learning.py dt_action_context     # decision transformer, MT10, with and without past actions
    python benchmarks/learning.py modules               # soft modules alone, in a transformer, and on one
    python benchmarks/learning.py networks              # behavior cloning with MOORE, PaCo, CARE and FiLM; M3DT
    python benchmarks/learning.py references            # scripted experts and random actions, MT10 and MT50

Every run is kept in runs/benchmarks with what was measured, and continued if interrupted; delete it to measure again.
"""

import argparse
import json
import time
from pathlib import Path

from common import machine, save

from mtorl.envs import MetaWorld
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.envs.references import evaluate_reference
from mtorl.envs.results import EvalReport
from mtorl.runs.training import train
from mtorl.trainers.logs import read_log

PROTOCOL = Protocol("heldout", 50)
DT = "configs/dt_mt10.yaml"
VARIANTS = {
    "bc": {"bc": ("configs/bc_mt10.yaml", {})},
    "bc_mt50": {"bc_mt50": ("configs/bc_mt50.yaml", {})},
    "dt_action_context": {f"dt_{name}": (DT, {"agent__action_context": name}) for name in ("none", "full", "dropout")},
    "modules": {name: (f"configs/{name}_mt10.yaml", {}) for name in ("soft_modular", "dt_soft_modules", "dual_policy")},
    "networks": {
        **{name: ("configs/bc_mt10.yaml", {"agent__network": name}) for name in ("MOORE", "PaCo", "CARE", "FiLM")},
        "M3DT": ("configs/m3dt_mt10.yaml", {}),
    },
    "dt_return": {
        "dt_none": (DT, {"agent__action_context": "none"}),
        "dt_no_return": (DT, {"agent__action_context": "none", "agent__return_conditioning": False}),
    },
}


def measure(name: str, config: str, options: dict, seed: int, threads: int) -> dict:
    """Trains and evaluates one run, or reads what was measured of it before."""
    folder = Path("runs/benchmarks") / f"{name}-seed{seed}"
    measured, clock = folder.with_suffix(".json"), folder.with_suffix(".seconds")
    if measured.exists():
        return json.loads(measured.read_text())
    started = time.perf_counter()
    before = float(clock.read_text()) if clock.exists() else 0.0
    try:
        if (folder / "config.yaml").exists():
            run = train(resume=folder)
        else:
            run = train(config, out=folder, seed=seed, threads=threads, schedule__evaluate_every=0, **options)
    finally:  # of all attempts, if one was interrupted
        clock.parent.mkdir(parents=True, exist_ok=True)
        clock.write_text(str(before + time.perf_counter() - started))
    rates = [row["steps_per_second"] for row in read_log(folder) if row["kind"] == "training"]
    result = {
        "seed": seed,
        **success(run.evaluate(PROTOCOL)),
        "training_seconds": round(float(clock.read_text()), 1),
        "steps_per_second_median": round(sorted(rates)[len(rates) // 2], 1),
        "threads": threads,
        "parameters": sum(value.numel() for value in run.policy()[0].agent.parameters()),
        "machine": machine(),
        "date": time.strftime("%Y-%m-%d"),
    }
    measured.write_text(json.dumps(result, indent=1))
    return result


def measure_references() -> None:
    """Plays the reference policies on the same goals."""
    results = {}
    for benchmark in ("MT10", "MT50"):
        for policy in ("expert", "random"):
            report = evaluate_reference(policy, MetaWorld(benchmark), PROTOCOL, Path("runs/references"))
            results[f"{policy}, {benchmark}"] = [success(report)]
    save("references", {"goals_per_task": PROTOCOL.goals, "results": results})


def success(report: EvalReport) -> dict:
    """What the tables say of one evaluation."""
    low, high = report.mean_interval()
    return {
        "mean_success": round(report.mean_success, 4),
        "interval": [round(low, 4), round(high, 4)],
        "tasks": {row.task: row.rate for row in report.tasks()},
        "tasks_at_last_step": {row.task: row.success_last_rate for row in report.tasks()},
    }


def main() -> None:
    """Runs all seeds of all variants, seeds outermost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=[*VARIANTS, "references"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.what == "references":
        return measure_references()
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
