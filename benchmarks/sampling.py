"""Windows per second from the memory map, and memory while drawing, for two sizes of data.

python benchmarks/sampling.py        # about a minute; writes 0.4 GB below the system's temporary folder
"""

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import save

from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter

TASKS, LENGTH = 10, 500


def write(path: Path, episodes: int) -> EpisodeStore:
    """Random episodes of Meta-World's dimensions."""
    draw = np.random.default_rng(0)
    names = [f"task-{number}" for number in range(TASKS)]
    flags = np.zeros(LENGTH, dtype=bool)
    made = (
        Episode(
            name,
            draw.random((LENGTH + 1, 39), dtype=np.float32),
            draw.random((LENGTH, 4), dtype=np.float32),
            draw.random(LENGTH, dtype=np.float32),
            flags,
            flags,
            flags,
        )
        for name in names
        for _ in range(episodes)
    )
    StoreWriter(path, {"class_path": "none", "init_args": {}}, names, (39, 4), LENGTH, {}, {}).write(made)
    return EpisodeStore(path)


def own_memory() -> float:
    """Memory of this process that is not pages of files, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def measure(store: EpisodeStore, windows: int) -> dict:
    """Draws for three seconds."""
    before = own_memory()
    sampler = TaskSampler([store], store.task_names, windows, 20, np.random.default_rng(0))
    for _ in range(20):
        sampler.draw()
    times = []
    while sum(times) < 3:
        start = time.perf_counter()
        sampler.draw()
        times.append(time.perf_counter() - start)
    batch = TASKS * windows
    return {
        "batch": batch,
        "windows_per_second": round(batch / statistics.median(times)),
        "ms_per_batch": round(1000 * statistics.median(times), 3),
        "own_memory_growth_mb": round(own_memory() - before, 1),
    }


def main() -> None:
    """Measures everything and writes results/sampling.json."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for episodes in (40, 400):
            store = write(Path(folder) / str(episodes), episodes)
            results[f"{len(store.actions):,} steps"] = [measure(store, windows) for windows in (7, 26, 100)]
    save("sampling", {"window": 20, "goals": {"windows_per_second": 150_000}, "results": results})


if __name__ == "__main__":
    main()
