"""Our own exports, and what only says to be one, for the corpora of `fuzz_importers.py`."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from corpus import MARKER
from numpy.random import Generator

from mtorl.datasets.episode import Episode
from mtorl.datasets.exporters import Exporter
from mtorl.datasets.store import EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.envs import PointReach

TASKS = ("towards-0", "away-1")


def export(exporter: Callable[[str], Exporter], folder: Path, draw: Generator) -> None:
    """Writes a small data set of two tasks, and its export into an existing folder."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        suite = PointReach(list(TASKS))
        StoreWriter(home / "store", suite.describe(), TASKS, (4, 2), 50, suite.versions(), {"recipe": "mixed"}).write(
            _episode(draw, number) for number in range(draw.integers(2, 6))
        )
        for path in exporter(str(home / "out")).export(EpisodeStore(home / "store")).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())


def false_export(folder: Path, arrays: dict[str, Any], draw: Generator) -> tuple[dict[str, Any], str]:
    """Arrays and a manifest that say to be an export of ours, of a suite that would run a command.

    Args:
        folder: Of the case.
        arrays: Observations, actions, rewards and flags of some episodes.
        draw: Source of all draws.
    """
    suite = {"class_path": "os.system", "init_args": {"command": f"touch '{folder.parent / MARKER}'"}}
    content = {"schema": 1, "suite": suite, "task_names": ["a"], "observation_dim": 5, "action_dim": 2, "horizon": 9}
    content |= {"versions": {}, "source": {}, "part": {"task": "a", "first": 0, "episodes": 2, "of": 2}}
    steps = len(arrays["rewards"])
    arrays = arrays | {"next_observations": arrays["observations"], "success": np.zeros(steps, bool)}
    arrays |= {f"infos/{name}": np.zeros(steps) for name in ("truncated", "goal", "seed", "noise", "random")}
    arrays["infos/episode"] = draw.integers(0, 3, steps) - 2
    text = json.dumps(content)
    if draw.random() < 0.5:
        text = text.replace('"os.system"', '"mtorl.envs.Recorded"')[: draw.integers(10, 2 * len(text))]
    return arrays, text


def _episode(draw: Generator, number: int) -> Episode:
    length = int(draw.integers(1, 9))
    last = np.arange(length) == length - 1
    return Episode(
        TASKS[number % 2],
        draw.normal(size=(length + 1, 4)).astype(np.float32),
        draw.uniform(-1, 1, (length, 2)).astype(np.float32),
        draw.normal(size=length).astype(np.float32),
        last,
        last & (number % 3 == 0),
        last,
        goal=number,
        seed=number,
        noise=0.1,
    )
