"""Data sets of Minari for `fuzz_importers.py`, made with h5py alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from corpus import ELSEWHERE, SECRET, Arrays, Corpus, odd
from numpy.random import Generator

from mtorl.datasets.importers import Minari
from mtorl.envs import PointReach

TASKS = ("towards-0", "away-1")


def box(size: int, low: float = -np.inf, high: float = np.inf) -> str:
    """A space of flat vectors, as Minari writes it down."""
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [size], "low": [low] * size, "high": [high] * size})


def episodes(draw: Generator, size: int = 4) -> list[Arrays]:
    """Arrays of a few short episodes."""
    found = []
    for length in draw.integers(1, 9, draw.integers(1, 5)):
        last = np.arange(length) == length - 1
        found.append(
            {
                "observations": draw.normal(size=(length + 1, size)).astype(np.float32),
                "actions": draw.uniform(-1, 1, (length, 2)).astype(np.float32),
                "rewards": draw.normal(size=length).astype(np.float32),
                "terminations": last & (draw.random() < 0.5),
                "truncations": last,
                "infos/success": np.concatenate([[False], last]),
            }
        )
    return found


def write(folder: Path, found: list[Arrays], attributes: Callable[[int], dict[str, Any]] | None = None, **said: Any):
    """Writes a data set; `said` is what its metadata say beside the usual."""
    (folder / "data").mkdir()
    metadata = {
        "total_episodes": len(found),
        "total_steps": sum(len(it["rewards"]) for it in found if "rewards" in it and np.ndim(it["rewards"])),
        "data_format": "hdf5",
        "observation_space": box(4),
        "action_space": box(2, -1.0, 1.0),
        "dataset_id": "some/set-v0",
        "minari_version": "0.5.4",
    }
    (folder / "data/metadata.json").write_text(json.dumps(metadata | said))
    with h5py.File(folder / "data/main_data.hdf5", "w") as file:
        for number, arrays in enumerate(found):
            group = file.create_group(f"episode_{number}")
            group.attrs.update({"id": number, "seed": number} | (attributes(number) if attributes else {}))
            for key, values in arrays.items():
                group[key] = h5py.Empty("f4") if values is None else values


def plain(folder: Path, draw: Generator) -> None:
    """Of an environment that nobody knows."""
    write(folder, episodes(draw), env_spec=json.dumps({"id": "Some-v0", "entry_point": "os:system"}))


def bounded(folder: Path, draw: Generator) -> None:
    """Actions have bounds of their own, numbers are wide, rewards stand in a column."""
    found = episodes(draw)
    for it in found:
        it["actions"] = it["actions"].astype(np.float64) * 3 + 1
        it["rewards"] = it["rewards"].astype(np.float64)[:, None]
        it["infos/more"] = np.zeros(3)
    write(folder, found, action_space=box(2, -2.0, 4.0), description="some data", author=["me"])


def exported(folder: Path, draw: Generator) -> None:
    """As our own exports are."""
    head = {
        "schema": 1,
        "suite": PointReach(list(TASKS)).describe(),
        "task_names": list(TASKS),
        "observation_dim": 4,
        "action_dim": 2,
        "horizon": 50,
        "versions": {"point_reach": "1"},
        "source": {"recipe": "mixed"},
    }
    write(folder, episodes(draw), _origin, mtorl=head)


def _origin(number: int) -> dict[str, Any]:
    return {"task": TASKS[number % 2], "goal": number, "noise": 0.1, "random": 0.0}


def odd_arrays(folder: Path, draw: Generator) -> None:
    """One of the arrays is odd."""
    found = episodes(draw)
    place = draw.integers(len(found))
    found[place] = odd(found[place], draw)
    write(folder, found)


def odd_metadata(folder: Path, draw: Generator) -> None:
    """A field of the metadata is something else."""
    name = draw.choice(
        ["total_episodes", "observation_space", "action_space", "env_spec", "author", "mtorl", "data_format"]
    )
    values = [None, 0, -1, 2**70, 1e400, "", "[", "[]", "{}", [], {}, [[]], True, "Box", box(0), box(10**9 % 1000)]
    values += ['{"type": "Dict"}', '{"type": "Box", "shape": [1000000000, 1000000000], "dtype": "x"}', "[" * 5000]
    write(folder, episodes(draw), **{str(name): values[draw.integers(len(values))]})


def foreign_suite(folder: Path, draw: Generator) -> None:
    """The manifest names a class of somebody else, or of no suite."""
    exported(folder, draw)
    path = folder / "data/metadata.json"
    content = json.loads(path.read_text())
    kinds = [
        "os.system",
        "antigravity.Suite",
        "mtorl.commands.main.os",
        "mtorl.nowhere.X",
        "mtorl.envs.Gymnasium",
        "",
        ".",
    ]
    arguments = [{}, {"environments": ["os:x"]}, {"suites": [{"class_path": "antigravity.S"}]}, {"tasks": 3}]
    content["mtorl"]["suite"] = {
        "class_path": str(draw.choice(kinds)),
        "init_args": arguments[draw.integers(len(arguments))],
    }
    path.write_text(json.dumps(content))


def odd_manifest(folder: Path, draw: Generator) -> None:
    """A field of the manifest, or of what is said of an episode, is something else."""
    exported(folder, draw)
    path = folder / "data/metadata.json"
    content = json.loads(path.read_text())
    values = [
        None,
        0,
        -1,
        2**70,
        "",
        "x",
        [],
        {},
        [[3]],
        True,
        ["towards-0"],
        ["towards-0"] * 2,
        [f"{it}" for it in range(9)],
    ]
    name = str(draw.choice([*content["mtorl"], "card", "parents", "returns_only", "own_dimensions"]))
    content["mtorl"][name] = values[draw.integers(len(values))]
    if draw.random() < 0.5:
        content["mtorl"].pop(name)
        with h5py.File(folder / "data/main_data.hdf5", "a") as file:
            name = str(draw.choice(["task", "goal", "noise", "random", "seed"]))
            odd_values = ["", "x", -5, 2**62, 1e300, np.nan, [1, 2], np.bytes_(b"away-1"), np.float16(2), "x" * 10_000]
            file["episode_0"].attrs[name] = odd_values[draw.integers(len(odd_values))]
    path.write_text(json.dumps(content))


def from_elsewhere(folder: Path, draw: Generator) -> None:
    """An array lies in another file, in one way or another."""
    found = episodes(draw)
    del found[0]["rewards"]
    length = len(found[0]["actions"])
    outside = folder.parent / ELSEWHERE
    outside.mkdir()
    secret = np.full(length, SECRET, np.float32)
    secret.tofile(outside / "raw")
    with h5py.File(outside / "x.hdf5", "w") as file:
        file["x"] = secret
    write(folder, found)
    with h5py.File(folder / "data/main_data.hdf5", "a") as file:
        group, kind = file["episode_0"], draw.integers(4)
        if kind == 0:
            group["rewards"] = h5py.ExternalLink(str(outside / "x.hdf5"), "x")
        elif kind == 1:
            group.create_dataset("rewards", (length,), "f4", external=[(str(outside / "raw"), 0, length * 4)])
        elif kind == 2:
            layout = h5py.VirtualLayout((length,), "f4")
            layout[:] = h5py.VirtualSource(str(outside / "x.hdf5"), "x", (length,))
            group.create_virtual_dataset("rewards", layout)
        else:
            group["rewards"] = h5py.SoftLink("/episode_0/terminations")


def bomb(folder: Path, draw: Generator) -> None:
    """Much more than the file's size, or without an end."""
    found = episodes(draw)
    del found[0]["rewards"]
    write(folder, found)
    length = len(found[0]["actions"])
    with h5py.File(folder / "data/main_data.hdf5", "a") as file:
        group, kind = file["episode_0"], draw.integers(4)
        if kind == 0:
            group.create_dataset("rewards", (10**13,), "f8")
        elif kind == 1:
            group.create_dataset("rewards", (3 * 10**7,), "f8", chunks=(10**6,), compression="gzip", fillvalue=1)
        elif kind == 2:
            group["infos"]["infos"] = group["infos"]
            group["rewards"] = np.zeros(length, np.float32)
        else:
            group["rewards"] = np.zeros(length, np.float32)
            group.attrs["task"] = "x" * 60_000
            for number in range(300):
                group.create_group(f"{number}")["x"] = np.zeros(1)


def linked_file(folder: Path, draw: Generator) -> None:
    """One of the two files is a link."""
    found = episodes(draw)
    for it in found:
        it["rewards"][:] = SECRET
    write(folder, found)
    path = folder / ("data" if draw.random() < 0.3 else f"data/{draw.choice(['metadata.json', 'main_data.hdf5'])}")
    outside = folder.parent / ELSEWHERE
    path.rename(outside)
    path.symlink_to(outside)


CORPUS = Corpus(
    Minari,
    [plain, bounded, exported],
    [odd_arrays, odd_metadata, foreign_suite, odd_manifest, from_elsewhere, bomb, linked_file],
    lambda folder: [str(folder)],
    links=True,
)
