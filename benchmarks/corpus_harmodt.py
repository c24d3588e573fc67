"""Archives of HarmoDT and MTDiff, and what strangers may make of them."""

from pathlib import Path

import corpus_npz
import numpy as np
from corpus import ELSEWHERE, SECRET, Arrays, Corpus, hostile_pickle, odd
from corpus_npz import write
from numpy.random import Generator

from mtorl.datasets.importers import HarmoDT


def episode(draw: Generator) -> Arrays:
    """The arrays of one episode of Meta-World."""
    length = int(draw.integers(1, 9))
    states = draw.normal(size=(length + 1, 39)).astype(np.float32)
    return {
        "observations": states[:-1],
        "actions": draw.uniform(-1, 1, (length, 4)).astype(np.float32),
        "rewards": draw.uniform(0, 10, (length, 1)).astype(np.float32),
        "next_observations": states[1:],
        "terminals": (np.arange(length) == length - 1).astype(np.float32)[:, None],
    }


def harmodt(folder: Path, draw: Generator) -> None:
    """Two tasks, in HarmoDT's layout."""
    for task in ("reach-v2", "push-v2"):
        for number in range(3):
            write(folder / task / f"{number}.npz", episode(draw), draw)


def mtdiff(folder: Path, draw: Generator) -> None:
    """In MTDiff's, with other names."""
    for number in range(3):
        arrays = episode(draw)
        arrays["dones"] = arrays.pop("terminals").reshape(-1).astype(bool)
        arrays["rewards"] = arrays["rewards"].reshape(-1)
        write(folder / "reach-v2/run/dataset" / f"{number}.npz", arrays, draw)


def odd_arrays(folder: Path, draw: Generator) -> None:
    """One file of a task is strange, or two of its arrays are."""
    harmodt(folder, draw)
    arrays = odd(episode(draw), draw)
    write(folder / "reach-v2/1.npz", odd(arrays, draw) if draw.random() < 0.5 else arrays, draw)


def odd_folders(folder: Path, draw: Generator) -> None:
    """Tasks that there are not, twice, or in several folders."""
    names = (
        "raech-v2",
        "reach-v3",
        "reach-v2/a/dataset",
        "reach-v2/b/dataset",
        "push",
        "..x-v2",
        "reach-v2-v2",
        "empty",
    )
    for name in draw.choice(names, 3, replace=False):
        write(folder / str(name) / f"{draw.choice(['0', '7', 'x', '0' * 12, '-1'])}.npz", episode(draw))
    if draw.random() < 0.3:
        (folder / "reach-v2_prompt.npy").write_bytes(hostile_pickle(folder))


def links(folder: Path, draw: Generator) -> None:
    """A file, or a folder, is a link to elsewhere."""
    arrays = episode(draw)
    for name in ("observations", "actions", "rewards", "next_observations"):
        arrays[name] = np.full_like(arrays[name], SECRET)
    write(folder.parent / ELSEWHERE / "dataset/0.npz", arrays)
    kind = draw.integers(4)
    harmodt(folder, draw)
    if kind == 0:
        (folder / "reach-v2/3.npz").symlink_to(f"../../{ELSEWHERE}/dataset/0.npz")
    elif kind == 1:
        (folder / "door-open-v2").symlink_to(f"../{ELSEWHERE}/dataset")
    elif kind == 2:
        (folder / "door-open-v2").mkdir()
        (folder / "door-open-v2/run").symlink_to(f"../../{ELSEWHERE}")
    else:
        (folder / "door-open-v2/run").mkdir(parents=True)
        (folder / "door-open-v2/run/dataset").symlink_to(f"../../../{ELSEWHERE}/dataset")


def inner(folder: Path, draw: Generator) -> None:
    """One of its archives is made to do harm."""
    harmful = (corpus_npz.bomb, corpus_npz.headers, corpus_npz.members, corpus_npz.objects, corpus_npz.not_npz)
    harmful[draw.integers(len(harmful))](folder, draw)
    harmodt(folder, draw)
    found = next(folder.glob("*.npz"))
    found.rename(folder / "reach-v2/1.npz")


CORPUS = Corpus(
    HarmoDT,
    (harmodt, mtdiff),
    (odd_arrays, odd_folders, links, inner, odd_arrays),
    lambda folder: [str(folder)],
    links=True,
)
