"""Trains runs in all processes that torchrun has started, for tests/trainers/test_distributed.py.

torchrun --nproc-per-node 2 tests/spread_runs.py CASES.json FOLDER
"""

import json
import os
import sys
from pathlib import Path

import torch

from mtorl import InputError
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.processes import joined, leave


def main() -> None:
    """Each case by its name; one that is refused leaves the message, and what was sent is noted."""
    torch.randn_like = lambda values: torch.full_like(values, 0.3)  # as the fixture `even_noise`
    torch.rand_like = lambda values: torch.full_like(values, 0.8)
    cases, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    with joined() as together:
        assert together is not None and together.count == int(os.environ["WORLD_SIZE"])
        for name, options in cases.items():
            sent = together.sent
            try:
                if "resume" in options:
                    train(resume=Run(options["resume"]))
                else:
                    train(**options, out=str(folder / name))
            except InputError as error:
                (folder / f"{name}.{together.rank}.error").write_text(str(error))
            (folder / f"{name}.{together.rank}.sent").write_text(str(together.sent - sent))


if __name__ == "__main__":
    main()
    leave()
