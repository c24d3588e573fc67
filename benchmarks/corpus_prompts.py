"""The pickled prompt files of HarmoDT and MTDiff, and what strangers may make of them."""

import builtins
import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
from corpus import MARKER, Corpus, flipped, hostile_pickle, odd
from corpus_harmodt import episode
from numpy.random import Generator

from mtorl.datasets.importers import HarmoDT


def write(path: Path, episodes: list[Any], draw: Generator) -> Path:
    """Writes a file, in any protocol of pickles."""
    content = np.empty(len(episodes), object)
    content[:] = episodes
    with path.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": content.shape}
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump(content, file, int(draw.integers(pickle.HIGHEST_PROTOCOL + 1)))
    return path


def right(folder: Path, draw: Generator) -> None:
    """As they usually are."""
    episodes = [episode(draw) | {"task": "reach-v2"} for _ in range(draw.integers(1, 4))]
    write(folder / "reach-v2_prompt.npy", episodes, draw)


def odd_arrays(folder: Path, draw: Generator) -> None:
    """An array is strange."""
    write(folder / "reach-v2_prompt.npy", [episode(draw), odd(odd(episode(draw), draw), draw)], draw)


def odd_values(folder: Path, draw: Generator) -> None:
    """Something stands where a dict or an array belongs."""
    arrays = episode(draw)
    recursive: list[Any] = []
    recursive.append(recursive)
    values: list[Any] = [
        None,
        1,
        "x",
        [],
        {},
        recursive,
        arrays["actions"],
        b"x" * 99,
        np.array([None] * 3),
        2**500,
        1j,
    ]
    value = values[draw.integers(len(values))]
    episodes = [arrays, value] if draw.random() < 0.5 else [arrays | {str(draw.choice(sorted(arrays))): value}]
    write(folder / "reach-v2_prompt.npy", episodes, draw)


class _Calls:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


def calls(folder: Path, draw: Generator) -> None:
    """It calls what writes a file."""
    place = str(folder.parent / MARKER)
    found = [
        _Calls(os.system, (f"touch '{place}'",)),
        _Calls(builtins.exec, (f"open({place!r}, 'w')",)),
        _Calls(builtins.eval, (f"open({place!r}, 'w')",)),
        _Calls(open, (place, "w")),
        _Calls(np.save, (place, 1)),
        _Calls(getattr, (np.zeros(1), "tofile")),
        random.Random(0),
        Path(place),
    ]
    value = found[draw.integers(len(found))]
    arrays = episode(draw)
    write(folder / "reach-v2_prompt.npy", [arrays, value if draw.random() < 0.5 else arrays | {"rewards": value}], draw)


def operations(folder: Path, draw: Generator) -> None:
    """Any operations in any order, those that are allowed more often than others."""
    place = f"{folder.parent / MARKER}".encode()
    parts = [
        *(
            b"(",
            b")",
            b"]",
            b"}",
            b"t",
            b"l",
            b"d",
            b"a",
            b"e",
            b"s",
            b"u",
            b"b",
            b"R",
            b"\x85",
            b"\x86",
            b"\x87",
            b"N",
        ),
        *(b"\x88", b"K\x01", b"q\x00", b"h\x00", b"\x94", b"C\x04abcd", b"X\x02\x00\x00\x00f4", b"I3\n", b"2", b"0"),
        *(b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"c_codecs\nencode\n"),
        *(
            b"cos\nsystem\n",
            b"X" + len(place).to_bytes(4, "little") + place,
            b"\x93",
            b"\x81",
            b"o",
            b"Px\n",
            b"\x82\x01",
        ),
        *(
            b"r\xff\xff\xff\x7f",
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"\x8b\xff\xff\xff\x7f",
            b"\x95" + b"\xff" * 8,
        ),
        *(b"cnumpy.core.multiarray\nscalar\n", b"cnumpy.core.numeric\n_frombuffer\n", b"L99999999999999999999L\n"),
    ]
    content = b"".join(parts[draw.integers(len(parts))] for _ in range(draw.integers(1, 200))) + b"."
    path = write(folder / "reach-v2_prompt.npy", [], draw)
    path.write_bytes(path.read_bytes()[:128].replace(b"(0,)", b"(1,)") + content)


def states(folder: Path, draw: Generator) -> None:
    """Right up to the states of arrays and types, where a few bits are others."""
    path = write(folder / "reach-v2_prompt.npy", [episode(draw)], draw)
    content = path.read_bytes()
    place = content.find(b"dtype")
    path.write_bytes(content[:place] + flipped(content[place : place + 150], draw) + content[place + 150 :])


def many(folder: Path, draw: Generator) -> None:
    """Small files for large things: one value at many places, lists in lists, operations without end."""
    kind = draw.integers(4)
    path = folder / "reach-v2_prompt.npy"
    if kind == 0:
        write(path, [episode(draw)] * 50_000, draw)
        return
    write(path, [], draw)
    nested = b"]q\x00" + b"](h\x00h\x00eq\x00" * 100_000
    content = (b"]" + b"]q\x00h\x00a" * 500_000, b"]" + b"\x85" * 390_000, nested)[kind - 1]
    path.write_bytes(path.read_bytes()[:128] + content + b".")


def not_prompts(folder: Path, draw: Generator) -> None:
    """Another kind of file under that name."""
    path = folder / "reach-v2_prompt.npy"
    kind = draw.integers(3)
    if kind == 0:
        np.save(path, draw.normal(size=9))
    else:
        path.write_bytes((hostile_pickle(folder), b"")[kind - 1])


CORPUS = Corpus(
    HarmoDT,
    (right,),
    (odd_arrays, calls, operations, states, odd_values, many, operations, not_prompts, states),
    lambda folder: [str(folder)],
    links=True,
)
