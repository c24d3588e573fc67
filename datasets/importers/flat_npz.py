"""Archives of arrays (.npz) in the flat layout, read a block of rows at a time."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.enclosed import KEY
from mtorl.datasets.flat import KEYS
from mtorl.files import regular

GROWTH, SMALL = 64, 1 << 24
"""Arrays may unpack to that many times the size of the archive, or to so many bytes if it is small."""
LONGEST_MANIFEST = 1 << 24
"""Bytes."""
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive raises."""


class FlatNpz:
    """An open archive, as `flat.FlatSource` wants it.

    Args:
        path: Its file.
        archive: The open archive.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.where, self._archive = str(path), archive
        members = {it.filename.removesuffix(".npy"): it for it in archive.infolist() if it.filename.endswith(".npy")}
        self._members = {key: members[key] for key in (KEY, *KEYS) if KEY in members and key in members}
        size = sum(it.file_size for it in self._members.values())
        if size > SMALL + GROWTH * path.stat().st_size:
            raise InputError(f"{path} unpacks to {size} bytes, more than {GROWTH} times its size. Make it again.")
        self._open: dict[str, tuple[IO[bytes], np.dtype[Any]]] = {}
        self.shapes: Mapping[str, tuple[int, ...]] = {key: self._header(key) for key in self._members}

    def manifest(self) -> bytes | None:
        """One of its arrays."""
        if KEY not in self._members:
            return None
        if len(self.shapes[KEY]) != 1 or self._members[KEY].file_size > LONGEST_MANIFEST:
            raise InputError(f"{self.where}: {KEY} has the shape {self.shapes[KEY]}; expected the bytes of a text.")
        self._header(KEY)
        return self.rows(KEY, 0, *self.shapes[KEY]).astype(np.uint8).tobytes()

    def rows(self, key: str, start: int, stop: int) -> NDArray[Any]:
        """The following rows of an array."""
        file, dtype = self._open[key]
        shape = (stop - start, *self.shapes[key][1:])
        count = int(np.prod(shape, dtype=object)) * dtype.itemsize
        content = self._tried(key, lambda: file.read(count))
        if len(content) != count:
            raise InputError(f"{self.where}: {key} ends early. Copy the file again.")
        return np.frombuffer(content, dtype).reshape(shape)

    def _header(self, key: str) -> tuple[int, ...]:
        """Opens an array at its first row; returns its shape."""
        file = self._tried(key, lambda: self._archive.open(self._members[key]))
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        version = self._tried(key, lambda: npy.read_magic(file))
        if version not in read:
            raise InputError(f"{self.where}: {key} has a header of version {version}; expected 1.0 or 2.0.")
        shape, fortran, dtype = self._tried(key, lambda: read[version](file))
        if dtype.kind not in "biuf" or fortran:
            raise InputError(f"{self.where}: {key} holds {dtype}{' by columns' * fortran}; expected rows of numbers.")
        self._open[key] = file, dtype
        return tuple(shape)

    def _tried(self, key: str, read: Any) -> Any:
        try:
            return read()
        except DAMAGED as error:
            raise InputError(f"{self.where}: {key} cannot be read: {str(error)[:200]}. Copy the file again.") from None


@contextmanager
def open_npz(path: Path) -> Iterator[FlatNpz]:
    """Opens an archive for `flat.contents` and `flat.episodes`."""
    try:
        archive = zipfile.ZipFile(regular(path, "the file"))
    except DAMAGED as error:
        raise InputError(f"{path} cannot be read as an archive of arrays: {error}. Copy the file again.") from None
    with archive:
        yield FlatNpz(path, archive)
