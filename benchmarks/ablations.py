"""Runs an ablation of configs/ablations, or continues it, and keeps its numbers in results/ablation_NAME.json.

    python benchmarks/ablations.py learning_rate_mt10_few    # plain training: learning rate and steps, 8 minutes
    python benchmarks/ablations.py balancers_mt10            # all balancers, about an hour and a half
    python benchmarks/ablations.py single_tasks_mt10_few     # one policy for all tasks against one for each
    python benchmarks/ablations.py sampling_mt10_few         # every step, every episode, until success
    python benchmarks/ablations.py learning_rate_mt10_replay_half   # of cloning all and the better part of mixed data
    python benchmarks/ablations.py cloning_mt10_replay_half  # the same beside learners with critics
    python benchmarks/ablations.py masks_mt10                # strategies of masking, behavior cloning
    python benchmarks/ablations.py masks_dt_mt10             # the same with a small transformer
    python benchmarks/ablations.py sharing_mt10_few          # ways of sharing, heads, branches, a model per group
    python benchmarks/ablations.py sharing_mt10_replay_half  # the same on mixed data
    python benchmarks/ablations.py agents_mt10               # agents on good and on mixed data, about two hours

Two processors work on runs of their own, so minutes are those of a busy machine.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from common import save

from mtorl.envs import MetaWorld
from mtorl.envs.collect import collect

ROOT = Path(__file__).parent.parent


def collect_data(name: str) -> None:
    """Records what an ablation trains on and looks at, as far as it is not there."""
    suite = MetaWorld("MT10")
    if name.endswith("_replay_half"):
        collect(suite, "data/mt10_replay_half", "replay-half", episodes=40)
        if name.startswith("sharing_"):
            collect(suite, "data/mt10_heldout", "expert", episodes=20, split="heldout")
    elif name == "agents_mt10":
        for recipe in ("expert", "replay", "replay-half"):
            collect(suite, f"data/mt10_{recipe.replace('-', '_')}", recipe, episodes=40)
    else:
        collect(suite, "data/mt10_expert5", "expert", episodes=5)
        collect(suite, "data/mt10_heldout", "expert", episodes=20, split="heldout")


def group_tasks(name: str) -> None:
    """Finds the groups of an ablation that compares ways of sharing, as far as they are not there."""
    data = name.removeprefix("sharing_")
    run = f"runs/groups_{data}"
    if not Path(run, "config.yaml").exists():
        call("train", "--config", f"configs/bc_{data}.yaml", "--out", run)
    for label, method in (("best", "GradTAG"), ("random", "RandomGroups")):
        path = f"data/groups_{data}_{label}.json"
        if not Path(path).exists():
            call("group", run, "--method", method, "--groups", "3", "--out", path)


def call(*words: str) -> None:
    """Runs a command of mtorl."""
    subprocess.run([sys.executable, "-m", "mtorl", *words], check=True)


def main() -> None:
    """Collects the data, if they are not there, and runs the ablation."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=sorted(path.stem for path in (ROOT / "configs/ablations").glob("*.yaml")))
    name = parser.parse_args().name
    collect_data(name)
    if name.startswith("sharing_"):
        group_tasks(name)
    call("ablate", "--config", f"configs/ablations/{name}.yaml", "--out", f"runs/{name}")
    content = json.loads(Path(f"runs/{name}/comparison.json").read_text())
    for row in content["methods"]:
        del row["runs"]
    save(f"ablation_{name}", content)


if __name__ == "__main__":
    main()
