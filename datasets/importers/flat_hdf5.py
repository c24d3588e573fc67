"""HDF5 files in the flat layout."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mtorl.datasets.enclosed import KEY
from mtorl.datasets.importers.hdf5_reader import Hdf5Reader


class FlatHdf5:
    """An open HDF5 file, as `flat.FlatSource` wants it.

    Args:
        file: The file.
    """

    def __init__(self, file: Hdf5Reader) -> None:
        root = file.group("")
        self.where, self._file = str(file.path), file
        self.shapes: Mapping[str, tuple[int, ...]] = root.shapes
        self._manifest = root.attributes.get(KEY)

    def manifest(self) -> bytes | None:
        """From the attributes of the file."""
        return None if self._manifest is None else str(self._manifest).encode()

    def rows(self, key: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of an array."""
        return self._file.read(key, start, stop)


@contextmanager
def open_hdf5(path: Path) -> Iterator[FlatHdf5]:
    """Opens a file for `flat.contents` and `flat.episodes`."""
    with Hdf5Reader(path) as file:
        yield FlatHdf5(file)
