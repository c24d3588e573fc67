"""Seconds until the command line answers.

python benchmarks/startup.py        # half a minute
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import save

MTORL = str(Path(sys.executable).parent / "mtorl")
COMMANDS = {
    "import mtorl": [sys.executable, "-c", "import mtorl"],
    "mtorl --help": [MTORL, "--help"],
    "import torch": [sys.executable, "-c", "import torch"],
    "mtorl collect --help": [MTORL, "collect", "--help"],
    "mtorl info --help": [MTORL, "info", "--help"],
    "mtorl train --help": [MTORL, "train", "--help"],
    "mtorl evaluate --help": [MTORL, "evaluate", "--help"],
    "mtorl report --help": [MTORL, "report", "--help"],
}


def main() -> None:
    """Measures every command 7 times in turn and writes results/startup.json."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(7):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    median = {name: round(statistics.median(found), 3) for name, found in seconds.items()}
    goals = {
        "import mtorl": 1.0,
        "mtorl --help": 1.0,
        "help of a command": f"import torch + 1 = {median['import torch'] + 1:.2f}",
    }
    save("startup", {"median_seconds": median, "goals": goals})


if __name__ == "__main__":
    main()
