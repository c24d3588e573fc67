"""Arrays in .npz files."""

import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.lib import format as npy

from mtorl.datasets.enclosed import KEY
from mtorl.datasets.exporters.flat_files import FlatFiles, FlatTask


class Npz(FlatFiles):
    """Arrays in .npz files, one per task, which numpy alone reads; in the layout of D4RL and OGBench.

    Args:
        out: A new folder for one file per task; or, for a single task, the .npz file.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".npz",)

    def write(self, path: Path, task: FlatTask) -> None:
        """Streams one array after the other into the archive; `numpy.savez` would hold them all."""
        text = np.frombuffer(task.manifest.encode(), dtype=np.uint8)
        with zipfile.ZipFile(path, "w") as archive:
            for key, (dtype, shape) in task.keys.items():
                header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (task.steps, *shape)}
                member = zipfile.ZipInfo(f"{key}.npy")  # the same bytes whenever it is written
                member.file_size = task.steps * int(np.prod(shape)) * dtype.itemsize
                with archive.open(member, "w") as file:
                    npy.write_array_header_1_0(file, header)
                    for block in task.blocks(key):
                        file.write(np.ascontiguousarray(block).data)
            with archive.open(zipfile.ZipInfo(f"{KEY}.npy"), "w") as file:
                npy.write_array(file, text, allow_pickle=False)
