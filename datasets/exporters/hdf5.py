"""HDF5 files as D4RL has them."""

from pathlib import Path
from typing import ClassVar

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
        import h5py

        with h5py.File(path, "w", libver=("v108", "v108")) as file:  # the first whose attributes may be long
            file.attrs[KEY] = np.bytes_(task.manifest.encode())
            for key, (dtype, shape) in task.keys.items():
                column = file.create_dataset(key, (task.steps, *shape), dtype)
                row = 0
                for block in task.blocks(key):
                    column[row : row + len(block)] = block
                    row += len(block)
