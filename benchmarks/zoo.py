"""Makes an entry of the zoo from nothing: records the data, trains, evaluates, and packs the run into zoo/NAME.

    python benchmarks/zoo.py bc_mt10              # behavior cloning, about 3 minutes on a quiet machine
    python benchmarks/zoo.py soft_modular_mt10    # soft modularization, about 8 minutes
    python benchmarks/zoo.py --goals 50 dt_mt10   # any preset of configs/ goes

Data are kept in data/, the run in runs/zoo_build/NAME: an interrupted one continues, and what is there is not made
again. Delete zoo/NAME to pack it anew.
"""

import argparse
from pathlib import Path

import mtorl
from mtorl.envs import MetaWorld
from mtorl.runs.configuration import Configuration
from mtorl.runs.training import start

EPISODES = 40


def make(name: str, goals: int, threads: int) -> Path:
    """The folder of an entry, which is a preset's policy."""
    config, run = Path(f"configs/{name}.yaml"), Path(f"runs/zoo_build/{name}")
    benchmark = name.rsplit("_", 1)[-1].upper()
    data = f"data/{benchmark.lower()}_expert"
    mtorl.collect(MetaWorld(benchmark), data, "expert", episodes=EPISODES, workers=threads)
    if (run / "config.yaml").exists():
        trained = mtorl.train(resume=run)
    else:
        arguments = ["--config", str(config), "--threads", "1", "--workers", "1", "--out", str(run)]
        trained = start(Configuration.parse(arguments), ["mtorl", "train", *arguments])
    mtorl.evaluate(trained, goals=goals, workers=threads)
    return mtorl.export_policy(trained, Path("zoo") / name, "run", licence="mit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", metavar="NAME", help="of a preset in configs/")
    parser.add_argument("--goals", type=int, default=10, help="held-out goals per task")
    parser.add_argument("--workers", type=int, default=1, dest="threads", help="processes that play")
    given = parser.parse_args()
    for name in given.names:
        print(
            f"{make(name, given.goals, given.threads)}: play it with `mtorl evaluate zoo:{name} --goals {given.goals}`"
        )


if __name__ == "__main__":
    main()
