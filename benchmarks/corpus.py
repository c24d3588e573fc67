"""What the corpora of `fuzz_importers.py` are made of: small right files, and what can be wrong with them.

A corpus is a module `corpus_KIND.py` with a `CORPUS`, where `mtorl import KIND` is what is tried.
"""

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from mtorl.datasets.importers import Importer

Arrays = dict[str, Any]
SECRET = 0.8125
"""Stands in files that an importer may not reach; no right file holds it."""
ELSEWHERE, MARKER = "elsewhere", "was_run"
"""Beside the folder of a case: a folder that it may not reach, and a file that appears when code of it is run."""


@dataclass(frozen=True)
class Corpus:
    """What an importer is tried with.

    Attributes:
        importer: Makes one.
        right: Each writes right files into a new folder; the fuzzer damages one of them.
        hostile: Each writes files into a new folder that somebody made to do harm, or by mistake.
        words: What is imported of a folder, as on a command line.
        links: Whether links in that folder may not lead out of it: the user did not name them one by one.
    """

    importer: Callable[[], Importer]
    right: Sequence[Callable[[Path, Generator], None]]
    hostile: Sequence[Callable[[Path, Generator], None]]
    words: Callable[[Path], list[str]]
    links: bool = False


def files_in(folder: Path) -> list[str]:
    """All entries of a folder, for importers that take files."""
    return sorted(str(path) for path in folder.iterdir())


def episodes_of(draw: Generator, observation_dim: int = 5, action_dim: int = 2) -> Arrays:
    """Arrays of a few short episodes, one after the other, with the names of D4RL."""
    lengths = draw.integers(1, 12, draw.integers(1, 6))
    steps = int(lengths.sum())
    ends = np.zeros(steps, bool)
    ends[np.cumsum(lengths) - 1] = True
    fell = ends & (draw.random(steps) < 0.5)
    return {
        "observations": draw.normal(size=(steps, observation_dim)).astype(np.float32),
        "actions": draw.uniform(-1, 1, (steps, action_dim)).astype(np.float32),
        "rewards": draw.normal(size=steps).astype(np.float32),
        "terminals": fell,
        "timeouts": ends & ~fell,
    }


def odd(arrays: Arrays, draw: Generator) -> Arrays:
    """The same arrays, and one of them has another type, shape, value or name, or is not there."""
    name = str(draw.choice(sorted(arrays)))
    values = np.asarray(arrays[name])
    if values.dtype.kind not in "biuf":  # it is odd already
        return arrays
    change = ODDITIES[draw.integers(len(ODDITIES))]
    try:
        changed = change(values, draw)
    except (TypeError, ValueError):  # it was strange before
        return arrays
    rest = {key: value for key, value in arrays.items() if key != name}
    return rest if changed is None else rest | {name: changed}


def _value(value: float) -> Callable[[NDArray[Any], Generator], NDArray[Any]]:
    def change(values: NDArray[Any], draw: Generator) -> NDArray[Any]:
        values = np.real(values).astype(np.float64)
        if values.size:
            values.flat[draw.integers(values.size)] = value
        return values

    return change


def _dtype(dtype: Any) -> Callable[[NDArray[Any], Generator], NDArray[Any]]:
    return lambda values, draw: values.astype(dtype)


ODDITIES: list[Callable[[NDArray[Any], Generator], NDArray[Any] | None]] = [
    lambda values, draw: None,
    *(_value(value) for value in (np.nan, np.inf, -np.inf, 1e300, 2.0, -1.0000004, 1e-320)),
    *(_dtype(dtype) for dtype in (">f8", "f2", "i8", "u1", "?", "c8", "S8", "i1", np.longdouble)),
    lambda values, draw: np.zeros(len(values), [("a", "f4"), ("b", "i8")]),
    lambda values, draw: values[:-1],
    lambda values, draw: values[:0],
    lambda values, draw: values[:1],
    lambda values, draw: np.concatenate([values, values]),
    lambda values, draw: values.T,
    lambda values, draw: values[..., None],
    lambda values, draw: values[None],
    lambda values, draw: np.float64(1),
    lambda values, draw: np.zeros((len(values), 4, 4, 3), np.uint8),
    lambda values, draw: np.zeros((len(values), 0)),
    lambda values, draw: np.zeros((0, 3)),
]


class _Runs:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


def hostile_pickle(folder: Path) -> bytes:
    """A pickle that runs code when it is loaded, which the fuzzer sees."""
    return pickle.dumps({"observations": _Runs(folder.parent / MARKER)})


def cut(content: bytes, draw: Generator) -> bytes:
    """The beginning."""
    return content[: draw.integers(len(content) + 1)]


def flipped(content: bytes, draw: Generator) -> bytes:
    """Some bits are others, half of the times only among the first 4,096 bytes."""
    damaged = bytearray(content)
    reach = min(len(damaged), 4096) if draw.random() < 0.5 else len(damaged)
    for place in draw.integers(0, max(reach, 1), draw.integers(1, 30)) if damaged else ():
        damaged[place] ^= 1 << int(draw.integers(8))
    return bytes(damaged)


def overwritten(content: bytes, draw: Generator) -> bytes:
    """A run of bytes is all zeros, all ones, or noise."""
    start, length = int(draw.integers(len(content) + 1)), int(draw.integers(1, 64))
    fill = (bytes(length), b"\xff" * length, draw.bytes(length))[draw.integers(3)]
    return content[:start] + fill + content[start + length :]


def shifted(content: bytes, draw: Generator) -> bytes:
    """A run of bytes was left out, or stands there twice."""
    start, length = int(draw.integers(len(content) + 1)), int(draw.integers(1, 600))
    return content[: start + length * int(draw.integers(2))] + content[start + length * int(draw.integers(2)) :]


DAMAGES = [cut, flipped, flipped, flipped, overwritten, overwritten, shifted]


def damage(folder: Path, draw: Generator, links: bool) -> str:
    """Damages one file of a folder; says how."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = files[draw.integers(len(files))]
    kind = draw.random()
    if kind < 0.9:
        change = DAMAGES[draw.integers(len(DAMAGES))]
        path.write_bytes(change(path.read_bytes(), draw))
        return f"{path.name} {change.__name__}"
    content = path.read_bytes()
    path.unlink()
    if kind < 0.92:
        path.write_bytes(draw.bytes(int(draw.integers(3000))))
        return f"{path.name} noise"
    if kind < 0.94:
        path.write_bytes(hostile_pickle(folder))
        return f"{path.name} pickle"
    if kind < 0.96:
        path.mkdir()
        return f"{path.name} folder"
    if kind < 0.98 or not links:
        os.mkfifo(path)
        return f"{path.name} pipe"
    outside = folder.parent / ELSEWHERE / path.name
    outside.parent.mkdir(exist_ok=True)
    outside.write_bytes(content)
    path.symlink_to(outside)
    return f"{path.name} link"
