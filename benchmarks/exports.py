"""Our own exports, for the corpora of `fuzz_importers.py`."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
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
