"""HDF5 files as D4RL has them."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mtorl.datasets.enclosed import KEY
from mtorl.datasets.exporters.flat_files import FlatFiles, FlatTask


class HDF5(FlatFiles):
    """HDF5 files in D4RL's layout, one per task: what `d4rl.qlearning_dataset` and its kin take.

    Args:
        out: A new folder for one file per task; or, for a single task, the file, .hdf5 or .h5.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".hdf5", ".h5")

    def write(self, path: Path, task: FlatTask) -> None:
        """Streams one array after the other into the file."""
        with _created(path) as file:
            file.attrs[KEY] = np.bytes_(task.manifest.encode())
            for key, (dtype, shape) in task.keys.items():
                column = _group_of(file, key).create_dataset(
                    key.rpartition("/")[2], (task.steps, *shape), dtype, track_times=False
                )
                row = 0
                for block in task.blocks(key):
                    column[row : row + len(block)] = block
                    row += len(block)


def _created(path: Path) -> Any:
    """A new file that says nothing of when it was written: the same data are the same bytes."""
    import h5py

    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)  # the first whose attributes may be long
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, creation, access))


def _group_of(file: Any, key: str) -> Any:
    """The group that a key belongs to, made without a time if it is not there."""
    import h5py

    name = key.rpartition("/")[0]
    if not name or name in file:
        return file[name] if name else file
    creation = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    creation.set_obj_track_times(False)
    return h5py.Group(h5py.h5g.create(file.id, name.encode(), gcpl=creation))
