"""HDF5 files in the layout of D4RL, and what strangers may make of them."""

from pathlib import Path

import h5py
import numpy as np
from corpus import ELSEWHERE, SECRET, Arrays, Corpus, episodes_of, files_in, hostile_pickle, odd
from exports import export, false_export
from numpy.random import Generator

from mtorl.datasets import exporters
from mtorl.datasets.enclosed import KEY
from mtorl.datasets.importers import D4RL


def write(path: Path, arrays: Arrays, **options: object) -> Path:
    """Writes a file."""
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            extended = values.dtype == np.longdouble or values.ndim == 0
            file.create_dataset(name, data=values, **({} if extended else options))
    return path


def plain(folder: Path, draw: Generator) -> None:
    """As they usually are."""
    write(folder / "walker2d-medium-v2.hdf5", episodes_of(draw))


def packed(folder: Path, draw: Generator) -> None:
    """In compressed chunks, with all that D4RL's files may have, and two of them."""
    for name in ("one", "two"):
        arrays = episodes_of(draw)
        arrays["next_observations"] = np.roll(arrays["observations"], -1, 0)
        arrays["rewards"] = arrays["rewards"][:, None]
        arrays["infos/qpos"] = draw.normal(size=(len(arrays["rewards"]), 3))
        write(folder / f"{name}.h5", arrays, chunks=True, compression="gzip", shuffle=True, fletcher32=True)
        with h5py.File(folder / f"{name}.h5", "a") as file:
            file["metadata/algorithm"], file["metadata/policy/fc0/weight"] = b"SAC", np.zeros((3, 3))


def wide(folder: Path, draw: Generator) -> None:
    """In the newest version of the format."""
    with h5py.File(folder / "a.hdf5", "w", libver="latest") as file:
        for name, values in episodes_of(draw, 40, 9).items():
            file.create_dataset(name, data=values, chunks=(min(3, len(values)), *values.shape[1:]))


def odd_arrays(folder: Path, draw: Generator) -> None:
    """One array is strange, in one of two files."""
    write(folder / "other.hdf5", episodes_of(draw))
    write(folder / "strange.hdf5", odd(episodes_of(draw), draw))


def two_odd_arrays(folder: Path, draw: Generator) -> None:
    """Two arrays are, also those that most files have not."""
    arrays = episodes_of(draw)
    arrays["next_observations"] = arrays["observations"]
    write(folder / "strange.hdf5", odd(odd(arrays, draw), draw), compression="gzip")


def _elsewhere(folder: Path, draw: Generator) -> Path:
    place = folder.parent / ELSEWHERE
    place.mkdir()
    arrays = episodes_of(draw)
    for name in ("observations", "actions", "rewards"):
        arrays[name] = np.full_like(arrays[name], SECRET)
    return write(place / "secret.hdf5", arrays)


def links(folder: Path, draw: Generator) -> None:
    """An array is a link to another one, or to one in another file."""
    secret = _elsewhere(folder, draw)
    arrays = episodes_of(draw)
    name = str(draw.choice(sorted(arrays)))
    del arrays[name]
    with h5py.File(write(folder / "linked.hdf5", arrays), "a") as file:
        outer = h5py.ExternalLink(str(secret), name)
        file[name] = (outer, h5py.SoftLink("/rewards"), h5py.SoftLink("/nowhere"))[draw.integers(3)]


def elsewhere(folder: Path, draw: Generator) -> None:
    """An array is put together from another file, or lies in one."""
    secret = _elsewhere(folder, draw)
    arrays = episodes_of(draw)
    name = str(draw.choice(["observations", "actions", "rewards"]))
    values = arrays.pop(name)
    with h5py.File(write(folder / "virtual.hdf5", arrays), "a") as file:
        if draw.random() < 0.5:
            layout = h5py.VirtualLayout(values.shape, values.dtype)
            layout[...] = h5py.VirtualSource(str(secret), name, values.shape)
            file.create_virtual_dataset(name, layout)
        else:
            place = [(str(secret), 0, values.nbytes)]
            file.create_dataset(name, values.shape, values.dtype, external=place)


def bomb(folder: Path, draw: Generator) -> None:
    """A small file that says to be a large one."""
    steps = int(draw.choice([10**7, 3 * 10**9, 10**12, 2**62]))
    kind = draw.integers(4)
    with h5py.File(folder / "bomb.hdf5", "w") as file:
        for name, values in episodes_of(draw).items():
            shape = (steps, *values.shape[1:])
            if kind == 0:  # nothing is stored of it
                shape = shape if np.prod(shape, dtype=object) * 8 < 2**63 else (10**9, *values.shape[1:])
                file.create_dataset(name, shape, values.dtype)
            elif kind == 1:  # chunks that fill the memory of whoever reads a value
                file.create_dataset(name, (10**8, *values.shape[1:]), values.dtype, chunks=(10**8, *values.shape[1:]))
            elif kind == 2:  # well packed
                shape = (10**6, *values.shape[1:])
                file.create_dataset(name, data=np.zeros(shape, values.dtype), compression="gzip", chunks=shape)
            else:  # one very wide row
                file.create_dataset(name, (1, *(10**8 for _ in values.shape[1:])), values.dtype, chunks=True)


def headers(folder: Path, draw: Generator) -> None:
    """Long lists, long names, many groups in each other, groups that hold themselves."""
    kind = draw.integers(5)
    with h5py.File(write(folder / "headers.hdf5", episodes_of(draw)), "a", libver="latest") as file:
        if kind == 0:
            for number in range(3000):
                file.create_group(f"infos/{number}")
        elif kind == 1:
            file["x" * 60_000] = 1
        elif kind == 2:
            file.create_group("/".join("g" * 300))
        elif kind == 3:
            file["infos/self"] = file["/"]
        else:
            file.attrs[KEY] = "[" * 2_000_000


def types(folder: Path, draw: Generator) -> None:
    """Texts, references, opaque bytes, lists: no numbers."""
    arrays = episodes_of(draw)
    name = str(draw.choice(sorted(arrays)))
    steps = len(arrays.pop(name))
    with h5py.File(write(folder / "types.hdf5", arrays), "a") as file:
        kind = draw.integers(5)
        if kind == 0:
            file.create_dataset(name, (steps, 5), h5py.vlen_dtype(np.float32))
        elif kind == 1:
            file.create_dataset(name, data=[hostile_pickle(folder).hex()] * steps)
        elif kind == 2:
            file.create_dataset(name, (steps,), h5py.ref_dtype)
        elif kind == 3:
            file.create_dataset(name, data=np.full((steps, 2), np.void(hostile_pickle(folder))))
        else:
            file.create_dataset(name, (steps, 2), np.dtype(("f4", (3,))))


def manifest(folder: Path, draw: Generator) -> None:
    """It says to be an export of ours."""
    arrays, text = false_export(folder, episodes_of(draw), draw)
    with h5py.File(write(folder / "manifest.hdf5", arrays), "a") as file:
        file.attrs[KEY] = text


def not_hdf5(folder: Path, draw: Generator) -> None:
    """Another kind of file under that name."""
    content = (hostile_pickle(folder), b"", b"\x89HDF\r\n\x1a\n" + draw.bytes(2000))[draw.integers(3)]
    (folder / "file.hdf5").write_bytes(content)


def exported(folder: Path, draw: Generator) -> None:
    """Our own export of two tasks."""
    export(exporters.HDF5, folder, draw)


def odd_export(folder: Path, draw: Generator) -> None:
    """An array of our own export is odd."""
    exported(folder, draw)
    with h5py.File(sorted(folder.iterdir())[0], "a") as file:
        arrays: Arrays = {}
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        changed = odd(arrays, draw)
        for name in arrays:
            if changed.get(name) is not arrays[name]:
                del file[name]
                if name in changed:
                    file[name] = changed[name]


CORPUS = Corpus(
    D4RL,
    (plain, packed, wide, exported),
    (
        odd_export,
        odd_arrays,
        links,
        two_odd_arrays,
        elsewhere,
        bomb,
        odd_arrays,
        headers,
        types,
        two_odd_arrays,
        manifest,
        not_hdf5,
    ),
    files_in,
)
