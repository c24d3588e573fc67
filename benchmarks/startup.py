"""Seconds until the command line answers, and until training and evaluation are under way.

python benchmarks/startup.py        # a minute
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import save

MTORL = str(Path(sys.executable).parent / "mtorl")
COMMANDS = {
    "import mtorl": [sys.executable, "-c", "import mtorl"],
    "mtorl --version": [MTORL, "--version"],
    "mtorl --help": [MTORL, "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
    "mtorl collect --help": [MTORL, "collect", "--help"],
    "mtorl info --help": [MTORL, "info", "--help"],
    "mtorl train --help": [MTORL, "train", "--help"],
    "mtorl evaluate --help": [MTORL, "evaluate", "--help"],
    "mtorl report --help": [MTORL, "report", "--help"],
}
HEAD = """
import sys, time
import mtorl, torch
start = time.perf_counter()
from mtorl.commands.main import main

def under_way():
    print("under way:", time.perf_counter() - start, flush=True)
"""
STEP = """
from mtorl.trainers.logs import NoLog
from mtorl.trainers.offline import OfflineTrainer
advance = OfflineTrainer.advance

def timed(self):
    advance(self)
    if not isinstance(self.log, NoLog):  # else it is the rehearsal before the run
        under_way()

OfflineTrainer.advance = timed
"""
EPISODE = """
from mtorl.envs import evaluator
play_block = evaluator.play_block

def timed(*arguments, **options):
    under_way()
    return play_block(*arguments, **options)

evaluator.play_block = timed
"""
TAIL = "\nsys.exit(main(sys.argv[1:]))\n"
AFTER_TORCH = {"mtorl train: its first step": STEP, "mtorl evaluate: its first episode begins": EPISODE}
GOAL = 1.5
"""Seconds after `import torch`."""
ROUNDS = 7


def answers() -> dict[str, list[float]]:
    """Seconds of every command, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def begins() -> dict[str, list[float]]:
    """Seconds between `import torch` and what a command is for, on a data set of PointReach with one thread."""
    seconds: dict[str, list[float]] = {name: [] for name in AFTER_TORCH}
    quiet = ["--workers", "0", "--quiet", "true"]
    with tempfile.TemporaryDirectory() as folder:
        data, run = f"{folder}/data", f"{folder}/run"
        subprocess.run(
            [MTORL, "collect", "--suite", "PointReach", "--episodes", "5", "--out", data, *quiet], check=True
        )
        train = ["train", "--data", data, "--schedule.steps", "1", "--threads", "1", *quiet, "--out"]
        subprocess.run([MTORL, *train, run, "--schedule.evaluate_every", "0"], check=True, capture_output=True)
        for number in range(ROUNDS):
            commands = (
                [*train, f"{run}{number}", "--schedule.evaluate_every", "0"],
                ["evaluate", run, "--goals", "1", *quiet, "--out", f"{folder}/reports{number}"],
            )
            for (name, code), command in zip(AFTER_TORCH.items(), commands, strict=True):
                child = [sys.executable, "-c", HEAD + code + TAIL, *command]
                said = subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True, cwd=folder).stdout
                line = next(line for line in said.splitlines() if line.startswith("under way:"))
                seconds[name].append(float(line.split()[-1]))
    return seconds


def main() -> None:
    """Measures every command 7 times in turn and writes results/startup.json."""
    median = {name: round(statistics.median(found), 3) for name, found in answers().items()}
    after = {name: round(statistics.median(found), 3) for name, found in begins().items()}
    goals = {
        "import mtorl": 0.1,
        "mtorl --version": 0.1,
        "mtorl --help": 1.0,
        "help of a command": f"import torch + 1 = {median['import torch'] + 1:.2f}",
        "after torch": GOAL,
    }
    save("startup", {"median_seconds": median, "median_seconds_after_torch": after, "goals": goals})


if __name__ == "__main__":
    main()
