"""From episodes of locomotion through D4RL's files to policies with normalised scores, each step one command.

    python benchmarks/locomotion.py --quick        # one environment, one kind of data, one seed; prints
    python benchmarks/locomotion.py                # 2 environments x 3 kinds x 3 agents x 3 seeds; goes on where it was

For each environment and kind of data: collect what the policies of `search_policy.py` do (`mtorl collect --policy`),
write it as D4RL's HDF5 (`mtorl export hdf5`), read that as anybody's file (`mtorl import d4rl`), train agents on it,
play them on goals that no episode of the data began with, and compare them in a page. The scores are on D4RL's scale,
but neither the data nor the simulator are D4RL's: they are not comparable to anybody else's.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import save

from mtorl.datasets.store import EpisodeStore
from mtorl.envs.gymnasium import Gymnasium
from mtorl.envs.results import EvalReport
from mtorl.measures import SCORE

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ("HalfCheetah-v5", "Hopper-v5")
KINDS = {"medium": ("middle", 0.05), "replay": ("replay", 0.1), "expert": ("late", 0.0)}
"""Which policies of the search acted, and the noise on their actions."""


class Learner(NamedTuple):
    """An agent with its options, and steps of training."""

    steps: int
    options: str


LEARNERS = {
    "bc": Learner(3000, "--agent BehaviorCloning --agent.hidden [256,256] --windows 256"),
    "iql": Learner(5000, "--agent IQL --agent.expectile 0.7 --agent.advantage_weight 3 --windows 256"),
    "dt": Learner(
        3000,
        "--agent DecisionTransformer --agent.context 20 --agent.width 128 --agent.layers 3 --agent.attention_heads 4 "
        "--agent.dropout 0.1 --windows 16",
    ),
}


class Plan(NamedTuple):
    """How much is done."""

    out: Path
    environments: tuple[str, ...] = ENVIRONMENTS
    kinds: tuple[str, ...] = tuple(KINDS)
    seeds: int = 3
    episodes: int = 50
    goals: int = 20
    share: float = 1.0
    """Of the steps of training."""
    workers: int = 0


def mtorl(command: str) -> float:
    """Runs a command of `mtorl` as users do; seconds that it took."""
    print(f"$ mtorl {command}", flush=True)
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "mtorl", *shlex.split(command)], cwd=ROOT, check=True)
    return time.perf_counter() - begun


def make_data(plan: Plan, environment: str, kind: str) -> Path:
    """Collects, exports and imports one data set; what is there already is taken."""
    policy, noise = KINDS[kind]
    name = f"{environment.rsplit('-v', 1)[0].lower()}-{kind}"
    collected, exported, imported = (plan.out / step / name for step in ("collected", "exported", "imported"))
    mtorl(
        f"collect --suite Gymnasium --suite.environments '[{environment}]' --policy benchmarks.search_policy.{policy} "
        f"--noise {noise} --episodes {plan.episodes} --workers {plan.workers} --out {collected} --quiet true"
    )
    if not imported.exists():
        if not exported.exists():
            mtorl(f"export hdf5 {collected} --out {exported}")
        (file,) = exported.glob("*.hdf5")
        mtorl(f"import d4rl {file} --out {imported} --quiet true")
    return imported


def learn(plan: Plan, data: Path, learner: str, seed: int) -> tuple[Path, float]:
    """Trains, or goes on training, one agent on one data set; its run, and minutes of training."""
    run = plan.out / "runs" / f"{data.name}-{learner}-seed{seed}"
    steps = max(50, int(plan.share * LEARNERS[learner].steps))
    if (run / "config.yaml").exists():
        seconds = mtorl(f"train --resume {run}")
    else:
        seconds = mtorl(
            f"train --data {data} --out {run} {LEARNERS[learner].options} --seed {seed} --schedule.steps {steps} "
            f"--schedule.evaluate_every {steps} --schedule.save_every {steps} --evaluate_goals 2 "
            f"--workers {plan.workers} --quiet true"
        )
    return run, seconds / 60


def played(plan: Plan, run: Path) -> EvalReport:
    """The run, evaluated on held-out goals."""
    mtorl(f"evaluate {run} --protocol heldout --goals {plan.goals} --workers {plan.workers} --quiet true")
    return EvalReport.load(run / "evaluations" / f"heldout-last-{plan.goals}.json")


def data_row(data: Path, environment: str) -> dict[str, float]:
    """What the data hold: steps, and mean return and normalised score of their episodes."""
    store = EpisodeStore(data)
    (task,) = store.manifest["tasks"]
    low, high = Gymnasium([environment]).return_bounds(0) or (0.0, 1.0)
    score = 100 * (task["return_mean"] - low) / (high - low)
    return {"steps": task["steps"], "return": round(task["return_mean"], 1), "score": round(score, 1)}


def results(plan: Plan) -> Iterator[dict[str, object]]:
    """A row for each environment, kind of data and agent."""
    for environment in plan.environments:
        runs = []
        for kind in plan.kinds:
            data = make_data(plan, environment, kind)
            for learner in LEARNERS:
                scores, minutes = [], []
                for seed in range(plan.seeds):
                    run, spent = learn(plan, data, learner, seed)
                    runs.append(str(run))
                    minutes.append(spent)
                    scores.append(next(it.value for it in played(plan, run).means if it.scale is SCORE))
                yield {
                    "environment": environment,
                    "data": {"kind": kind, **data_row(data, environment)},
                    "agent": learner,
                    "scores": [round(it, 1) for it in scores],
                    "score": round(float(np.mean(scores)), 1),
                    "minutes_of_training": round(float(np.mean(minutes)), 2),
                }
        mtorl(f"report {' '.join(runs)} --goals {plan.goals} --out {plan.out / 'reports' / environment}.html")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small part, to see that all of it works")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "locomotion")
    parser.add_argument("--workers", type=int, default=0)
    given = parser.parse_args()
    out = given.out.resolve()
    plan = Plan(out, workers=given.workers)
    if given.quick:
        plan = Plan(out, ("Hopper-v5",), ("expert",), 1, episodes=10, goals=5, share=0.05, workers=given.workers)
    begun = time.perf_counter()
    rows = list(results(plan))
    note = "self-made data of linear policies (benchmarks/search_policy.py), gymnasium v5: not comparable to D4RL"
    minutes = round((time.perf_counter() - begun) / 60, 1)
    content = {"note": note, "seeds": plan.seeds, "goals": plan.goals, "minutes": minutes, "results": rows}
    if given.quick:
        print(json.dumps(content, indent=1))
    else:
        save("locomotion", content)


if __name__ == "__main__":
    main()
