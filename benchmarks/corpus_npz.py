"""Archives of arrays, and what strangers may make of them."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from corpus import ELSEWHERE, MARKER, SECRET, Arrays, Corpus, episodes_of, hostile_pickle, odd
from exports import export, false_export
from numpy.random import Generator

from mtorl.datasets import exporters
from mtorl.datasets.enclosed import KEY
from mtorl.datasets.importers import Npz


def write(path: Path, arrays: Arrays, draw: Generator | None = None) -> Path:
    """Writes a file, packed or not; arrays of objects as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = draw is not None and draw.random() < 0.5
    content: dict[str, Any] = dict(arrays)
    (np.savez_compressed if packed else np.savez)(path, **content)
    return path


def flat(folder: Path, draw: Generator) -> None:
    """Episodes one after the other, of two tasks."""
    write(folder / "one.npz", episodes_of(draw), draw)


def followed(folder: Path, draw: Generator) -> None:
    """With next observations, and more than is needed."""
    arrays = episodes_of(draw)
    arrays["next_observations"] = np.roll(arrays["observations"], -1, 0)
    arrays["rewards"] = arrays["rewards"][:, None]
    arrays["success"], arrays["qpos"] = arrays["terminals"], arrays["observations"].astype(np.float64)
    write(folder / "one.npz", arrays, draw)


def single(folder: Path, draw: Generator) -> None:
    """An episode a file, in a folder for each task."""
    for task in ("run", "walk"):
        for number in range(3):
            arrays = episodes_of(draw)
            kept = {name: arrays[name] for name in ("observations", "actions", "rewards")}
            write(folder / task / f"{number}.npz", kept, draw)


def ogbench(folder: Path, draw: Generator) -> None:
    """In OGBench's layout."""
    arrays = episodes_of(draw)
    kept: Arrays = {name: arrays[name] for name in ("observations", "actions")}
    kept["terminals"] = (arrays["terminals"] | arrays["timeouts"]).astype(np.float32)
    write(folder / "maze.npz", kept, draw)


def odd_arrays(folder: Path, draw: Generator) -> None:
    """One array is strange, or two are."""
    arrays = odd(episodes_of(draw), draw)
    write(folder / "strange.npz", odd(arrays, draw) if draw.random() < 0.5 and len(arrays) > 1 else arrays, draw)


def odd_files(folder: Path, draw: Generator) -> None:
    """One file of a task is strange."""
    single(folder, draw)
    arrays = episodes_of(draw)
    arrays["next_observations"] = arrays["observations"]
    write(folder / "run/1.npz", odd(arrays, draw), draw)


def objects(folder: Path, draw: Generator) -> None:
    """Pickles where arrays belong."""
    arrays = episodes_of(draw)
    name = str(draw.choice(sorted(arrays)))
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "|O", "fortran_order": False, "shape": (3,)})
    content.write(hostile_pickle(folder))
    del arrays[name]
    path = write(folder / "objects.npz", arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", content.getvalue() if draw.random() < 0.5 else hostile_pickle(folder))


def bomb(folder: Path, draw: Generator) -> None:
    """A small file that unpacks to a large one."""
    arrays = episodes_of(draw)
    path = folder / "bomb.npz"
    kind = draw.integers(3)
    if kind == 0:
        name = str(draw.choice(sorted(arrays)))
        write(path, arrays | {name: np.zeros((10**7, *arrays[name].shape[1:]), arrays[name].dtype)})
        np.savez_compressed(path, **arrays | {name: np.zeros((10**7, *arrays[name].shape[1:]), np.float32)})
        return
    method = (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)[draw.integers(2)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if kind == 1 else method) as archive:
        for name in arrays:
            with archive.open(f"{name}.npy", "w") as file:
                shape = (
                    (5_000_000, 5) if name == "observations" else (5_000_000, 2) if name == "actions" else (5_000_000,)
                )
                np.lib.format.write_array_header_1_0(
                    file, {"descr": "<f4", "fortran_order": bool(draw.integers(2)), "shape": shape}
                )
                for _ in range(20):
                    file.write(bytes(int(np.prod(shape)) // 5))


def headers(folder: Path, draw: Generator) -> None:
    """Headers that say strange things of what follows."""
    arrays = episodes_of(draw)
    path = write(folder / "whole.npz", arrays)
    steps = len(arrays["rewards"])
    head = "{'descr': '<f4', 'fortran_order': False, 'shape': "
    texts = (
        f"{head}({'9' * int(draw.integers(1, 4000))},), }}",
        f"{head}(-1,), }}",
        f"{head}({steps}, 99999999999, 99999999999), }}".replace("False", "True"),
        f"{head}({steps},), }}".replace("'<f4'", "[('a', '<f4')]"),
        f"{head}({steps},), }}".replace("<f4", "<V4"),
        f"{head}({steps},), 'more': 1}}",
        f"{head}(), }}".replace("<f4", "O"),
        "(" * int(draw.integers(1, 60_000)),
        f"__import__('os').system('touch {folder.parent / MARKER}')",
    )
    text = texts[draw.integers(len(texts))].encode()
    length = len(text) if draw.random() < 0.7 else int(draw.integers(0, 65536))
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", length) + text + bytes(4 * steps)
    if draw.random() < 0.3:
        content = b"\x93NUMPY\x02\x00" + struct.pack("<I", int(draw.choice([length, 2**32 - 1]))) + text
    replaced = str(draw.choice(sorted(arrays)))
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(folder / "headers.npz", "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name == f"{replaced}.npy" else old.read(name))
    path.unlink()


def members(folder: Path, draw: Generator) -> None:
    """Lists of what is in an archive that are long, double, or lead elsewhere."""
    kind = draw.integers(4)
    path = write(folder / "members.npz", episodes_of(draw))
    with zipfile.ZipFile(path, "a") as archive:
        if kind == 0:
            for number in range(5000):
                archive.writestr(f"{number}.npy", b"")
        elif kind == 1:
            for number in range(140):
                member = zipfile.ZipInfo(f"{number}.npy")
                member.comment = b" " * 65_000
                archive.writestr(member, b"")
        elif kind == 2:
            archive.writestr("../../observations.npy", b"x")
            archive.writestr("/etc/passwd.npy", b"x")
        else:
            archive.writestr("other/rewards.npy", archive.read("rewards.npy"))
            archive.getinfo("rewards.npy").file_size = int(draw.choice([1, 2**31, 2**62]))


def links(folder: Path, draw: Generator) -> None:
    """A file, or a folder, is a link to elsewhere."""
    arrays = episodes_of(draw)
    for name in ("observations", "actions", "rewards"):
        arrays[name] = np.full_like(arrays[name], SECRET)
    secret = write(folder.parent / ELSEWHERE / "1.npz", arrays)
    kind = draw.integers(3)
    if kind == 0:
        write(folder / "0.npz", episodes_of(draw))
        (folder / "1.npz").symlink_to(secret)
    elif kind == 1:
        (folder / "task").symlink_to(f"../{ELSEWHERE}")
    else:
        (folder / "task").mkdir()
        (folder / "task/1.npz").symlink_to(f"../../{ELSEWHERE}/1.npz")


def manifest(folder: Path, draw: Generator) -> None:
    """It says to be an export of ours."""
    arrays, text = false_export(folder, episodes_of(draw), draw)
    write(folder / "manifest.npz", arrays | {KEY: np.frombuffer(text.encode(), np.uint8)})


def not_npz(folder: Path, draw: Generator) -> None:
    """Another kind of file under that name."""
    content = (hostile_pickle(folder), b"", b"PK\x05\x06" + draw.bytes(18), b"PK\x03\x04" + draw.bytes(2000))
    (folder / "file.npz").write_bytes(content[draw.integers(4)])


def exported(folder: Path, draw: Generator) -> None:
    """Our own export of two tasks."""
    export(exporters.Npz, folder, draw)


def odd_export(folder: Path, draw: Generator) -> None:
    """An array of our own export is odd."""
    exported(folder, draw)
    path = sorted(folder.iterdir())[0]
    write(path, odd(dict(np.load(path)), draw))


CORPUS = Corpus(
    Npz,
    (flat, followed, single, ogbench, exported),
    (
        odd_export,
        odd_arrays,
        objects,
        bomb,
        odd_files,
        headers,
        members,
        odd_arrays,
        links,
        manifest,
        not_npz,
        odd_files,
    ),
    lambda folder: [str(folder)],
    links=True,
)
