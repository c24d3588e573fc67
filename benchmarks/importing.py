"""Seconds and memory of importers, for files of two sizes; each import in a process of its own.

    python benchmarks/importing.py d4rl        # a minute, 1 GB of temporary files
    python benchmarks/importing.py harmodt     # 4,000 files; and windows from what was imported and what was written

An importer joins with a function that writes its files, in WRITERS.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import save

OBSERVATIONS, ACTIONS, LENGTH = 17, 6, 1000
"""HalfCheetah's, as in D4RL."""
EPISODE = 500
"""Steps of an episode of Meta-World."""
ROUNDS = 3


def blocks(steps: int) -> Any:
    """Random episodes of LENGTH steps, 100 at a time."""
    draw = np.random.default_rng(0)
    for start in range(0, steps, 100 * LENGTH):
        count = min(100 * LENGTH, steps - start)
        ends = np.arange(start + 1, start + count + 1) % LENGTH == 0
        yield (
            slice(start, start + count),
            {
                "observations": draw.normal(size=(count, OBSERVATIONS)).astype(np.float32),
                "actions": draw.uniform(-1, 1, (count, ACTIONS)).astype(np.float32),
                "rewards": draw.normal(size=count).astype(np.float32),
                "terminals": np.zeros(count, bool),
                "timeouts": ends,
            },
        )


def write_d4rl(folder: Path, steps: int) -> list[str]:
    """One file, in compressed chunks, with the keys of D4RL's v2 files."""
    import h5py

    path = folder / "halfcheetah-medium-v2.hdf5"
    with h5py.File(path, "w") as file:
        for rows, arrays in blocks(steps):
            for name, values in arrays.items():
                if name not in file:
                    shape = (steps, *values.shape[1:])
                    file.create_dataset(name, shape, values.dtype, chunks=True, compression="gzip")
                file[name][rows] = values
        file["metadata/algorithm"] = "SAC"
    return [str(path)]


def write_folders(folder: Path, steps: int, keys: Sequence[str] = ()) -> list[str]:
    """Episodes of Meta-World's sizes in files of their own, ten tasks: 2,000 files for a million steps."""
    draw = np.random.default_rng(0)
    names = ("reach", "push", "pick-place", "door-open", "drawer-open", "drawer-close", "window-open", "window-close")
    tasks = [folder / f"{name}-v2" for name in (*names, "button-press-topdown", "peg-insert-side")]
    for task in tasks:
        task.mkdir()
        for number in range(steps // (EPISODE * len(tasks))):
            states = draw.normal(size=(EPISODE + 1, 39)).astype(np.float32)
            arrays = {
                "observations": states[:-1],
                "actions": draw.uniform(-1, 1, (EPISODE, 4)).astype(np.float32),
                "rewards": draw.uniform(0, 10, (EPISODE, 1)).astype(np.float32),
                "next_observations": states[1:],
                "terminals": (np.arange(EPISODE) == EPISODE - 1)[:, None],
            }
            np.savez(task / f"{number}.npz", **{name: arrays[name] for name in keys or arrays})
    return [str(folder)]


def write_npz(folder: Path, steps: int) -> list[str]:
    """The same without flags."""
    return write_folders(folder, steps, ("observations", "actions", "rewards"))


def write_minari(folder: Path, steps: int) -> list[str]:
    """One data set, a group for each episode, as Minari writes them."""
    import h5py

    def box(size: int, bound: float) -> str:
        return json.dumps(
            {"type": "Box", "dtype": "float32", "shape": [size], "low": [-bound] * size, "high": [bound] * size}
        )

    (data := folder / "set-v0/data").mkdir(parents=True)
    spaces = {"observation_space": box(OBSERVATIONS, np.inf), "action_space": box(ACTIONS, 1.0)}
    (data / "metadata.json").write_text(json.dumps({"total_episodes": steps // LENGTH, **spaces}))
    with h5py.File(data / "main_data.hdf5", "w") as file:
        for _, arrays in blocks(steps):
            for start in range(0, len(arrays["rewards"]), LENGTH):
                rows = slice(start, start + LENGTH)
                observations = arrays["observations"][rows]
                episode = {
                    "observations": np.concatenate([observations, observations[-1:]]),
                    "actions": arrays["actions"][rows],
                    "rewards": arrays["rewards"][rows].astype(np.float64),
                    "terminations": arrays["terminals"][rows],
                    "truncations": arrays["timeouts"][rows],
                }
                group = file.create_group(f"episode_{len(file)}")
                for name, values in episode.items():
                    group.create_dataset(name, data=values, chunks=True, maxshape=(None, *values.shape[1:]))
    return [str(folder / "set-v0")]


def write_lerobot(folder: Path, steps: int) -> list[str]:
    """Of v3.0: files of 200 episodes, a row group for each."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def table(first: int, arrays: dict[str, Any]) -> pa.Table:
        rows = np.arange(first, first + len(arrays["rewards"]))
        wide = {"observation.state": arrays["observations"], "action": arrays["actions"]}
        columns = {name: pa.FixedSizeListArray.from_arrays(it.ravel(), it.shape[1]) for name, it in wide.items()}
        marks = {"episode_index": rows // LENGTH, "frame_index": rows % LENGTH, "task_index": rows // LENGTH % 2}
        return pa.table(columns | {"next.reward": arrays["rewards"], "next.done": arrays["timeouts"]} | marks)

    (folder / "meta").mkdir()
    (folder / "data/chunk-000").mkdir(parents=True)
    features = {name: {"dtype": "float32", "shape": [1]} for name in ("observation.state", "action", "next.reward")}
    info = {"codebase_version": "v3.0", "features": features}
    (folder / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.table({"task_index": [0, 1], "task": ["Run", "Jump"]}), folder / "meta/tasks.parquet")
    writer, number = None, 0
    for rows, arrays in blocks(steps):
        made = table(rows.start, arrays)
        if writer is None:
            path = folder / f"data/chunk-000/file-{number:03d}.parquet"
            writer, number = pq.ParquetWriter(path, made.schema, compression="snappy"), number + 1
        for start in range(0, len(made), LENGTH):
            writer.write_table(made.slice(start, LENGTH))
        if rows.stop % (200 * LENGTH) == 0:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()
    return [str(folder)]


WRITERS: dict[str, Callable[[Path, int], list[str]]] = {
    "d4rl": write_d4rl,
    "harmodt": write_folders,
    "lerobot": write_lerobot,
    "minari": write_minari,
    "npz": write_npz,
}
"""Each writes files of so many steps into a folder; what `mtorl import KIND` is to be given."""


def child(kind: str, words: list[str], out: str) -> None:
    """Imports, and prints seconds and the most memory of this process and those that it started."""
    from mtorl.commands.base import kind_of
    from mtorl.envs.importing import import_data

    importer = kind_of("importers", "", [kind])
    assert importer is not None
    start = time.perf_counter()
    import_data(importer(), words, out, quiet=True)
    seconds = time.perf_counter() - start
    most = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([seconds, *most]))


def processor_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(kind: str, steps: int, rounds: int) -> dict[str, Any]:
    """Median seconds and largest memory of some imports of the same files."""
    home = Path(tempfile.mkdtemp(prefix="importing-"))
    try:
        (home / "files").mkdir()
        words = WRITERS[kind](home / "files", steps)
        found, before = [], processor_seconds()
        for _ in range(rounds):
            command = [sys.executable, __file__, kind, "--child", str(home / "store"), "--words", *words]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
            shutil.rmtree(home / "store")
        processor = (processor_seconds() - before) / rounds
        size = sum(path.stat().st_size for path in (home / "files").rglob("*") if path.is_file())
    finally:
        shutil.rmtree(home)
    seconds, own, reader = (list(values) for values in zip(*found, strict=True))
    return {
        "steps": steps,
        "megabytes": round(size / 1e6),
        "seconds": round(statistics.median(seconds), 2),
        "processor_seconds_with_start": round(processor, 2),
        "memory_mib": round(max(own)),
        "reader_memory_mib": round(max(reader)),
    }


def windows() -> dict[str, int]:
    """Windows a second from an import of HarmoDT's files, and from a store of the same size that was never elsewhere.

    They are measured in turns, because other programs may be at work beside this one.
    """
    import sampling

    from mtorl.datasets.importers import HarmoDT
    from mtorl.envs.importing import import_data

    with tempfile.TemporaryDirectory() as name:
        (home := Path(name) / "files").mkdir()
        paths = write_folders(home, 1_000_000)
        stores = {
            "imported": import_data(HarmoDT(), paths, Path(name) / "imported", quiet=True),
            "collected": sampling.write(Path(name) / "collected", 200),
        }
        found: dict[str, list[int]] = {kind: [] for kind in stores}
        for _ in range(ROUNDS):
            for kind, store in stores.items():
                found[kind].append(sampling.measure(store, 26)["windows_per_second"])
    return {kind: max(values) for kind, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(WRITERS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--words", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.kind, options.words, options.child)
        return
    sizes = (200_000, 1_000_000, 2_000_000)
    found = [measure(options.kind, steps, ROUNDS if steps == 1_000_000 else 1) for steps in sizes]
    further = {"windows_per_second": windows()} if options.kind == "harmodt" else {}
    save(f"importing_{options.kind}", {"sizes": found, **further, "load_before": round(os.getloadavg()[0], 1)})


if __name__ == "__main__":
    main()
