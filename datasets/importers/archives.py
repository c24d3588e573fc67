"""Archives of arrays (.npz) of strangers, read a block of rows at a time."""

import io
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.enclosed import KEY
from mtorl.datasets.importers.npy_header import Header, read_header
from mtorl.files import regular

GROWTH, SMALL = 64, 1 << 24
"""What is read of an archive may unpack to that many times its size, or to so many bytes if it is small."""
WHOLE = 1 << 27
"""Bytes of the arrays that are held in memory whole, at most; of one archive together."""
CHUNK = 1 << 22
"""Bytes that are read from a file at once, at most: so long may the list of what is in it be, too."""
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged archive raises."""
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those of numpy; Python's readers of others unpack as much as there is at once."""
_T = TypeVar("_T")


class Archive:
    """An open archive of arrays; also a `flat.FlatSource`.

    Args:
        path: Its file.
        archive: The open archive.

    Attributes:
        where: Names it in messages.
        names: Of its arrays, in their order.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.where, self._archive, self._size = str(path), archive, path.stat().st_size
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        self._members = {info.filename.removesuffix(".npy"): info for info in infos}
        if len(self._members) < len(infos):
            raise InputError(f"{path} holds two arrays of the same name. Save it with numpy again.")
        self.names = tuple(self._members)
        self._open: dict[str, tuple[IO[bytes], Header]] = {}
        self._held: dict[str, NDArray[Any]] = {}
        self._unpacked = 0

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of all its arrays; raises InputError if one of them is no array of numbers."""
        return {name: self.header(name).shape for name in self.names}

    def header(self, name: str) -> Header:
        """What an array of numbers is like.

        Raises:
            InputError: It is no such array, is packed in an unknown way, or unpacks to too much.
        """
        if name not in self._open:
            self._open[name] = self._opened(name)
        return self._open[name][1]

    def manifest(self) -> bytes | None:
        """What stands in `mtorl/manifest`; None: it is not there."""
        if KEY not in self._members:
            return None
        header = self.header(KEY)
        if len(header.shape) != 1 or header.size > CHUNK or header.dtype != np.uint8:
            raise InputError(
                f"{self.where}: {KEY} holds {header.dtype} of the shape {header.shape}; expected bytes of a text."
            )
        del self._open[KEY]  # from its first byte, whenever it is asked for
        return self.whole(KEY).tobytes()

    def rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of an array `[stop - start, ...]`; they have to be asked for in their order, each once."""
        header = self.header(name)
        if header.columns and len(header.shape) > 1:
            if name not in self._held:
                self._held[name] = self._numbers(name, header.shape[::-1]).T
            return self._held[name][start:stop]
        return self._numbers(name, (stop - start, *header.shape[1:]))

    def whole(self, name: str) -> NDArray[Any]:
        """An array with all its rows, before any of them was read."""
        header = self.header(name)
        if not header.columns:
            return self._numbers(name, header.shape)
        return self._numbers(name, header.shape[::-1]).T

    def _opened(self, name: str) -> tuple[IO[bytes], Header]:
        where, info = f"{self.where}: {name}", self._members[name]
        if info.compress_type not in _METHODS:
            raise InputError(f"{where} is packed by method {info.compress_type}; expected numpy's. Save it again.")
        self._unpacked += info.file_size
        if self._unpacked > SMALL + GROWTH * self._size:
            raise InputError(
                f"{where} unpacks to {info.file_size} bytes, more than {GROWTH} times the size of its file. If it is "
                "not damaged, save it with numpy.savez, which does not compress."
            )
        file = self._tried(name, lambda: self._archive.open(info))
        header = self._tried(name, lambda: read_header(file, where))
        if header.dtype is None:
            raise InputError(
                f"{where} holds objects of Python, which could run code when they are read; expected numbers. Save its "
                "values as arrays of numbers."
            )
        stated = info.file_size - file.tell()
        if header.size != stated:
            raise InputError(f"{where}: its shape {header.shape} takes {header.size} bytes, it has {stated}; damaged.")
        return file, header

    def _numbers(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        file, header = self._open[name]
        dtype = header.dtype or np.dtype("u1")
        size = math.prod(shape) * dtype.itemsize
        if size > WHOLE:
            raise InputError(
                f"{self.where}: {size} bytes of {name} would be held in memory at once; expected at most {WHOLE}. "
                "Save its episodes in files of their own, by rows (numpy.ascontiguousarray)."
            )
        content = bytearray()
        while len(content) < size:
            part = self._tried(name, partial(file.read, min(size - len(content), CHUNK)))
            if not part:
                raise InputError(f"{self.where}: {name} ends early. Copy the file again.")
            content += part
        return np.frombuffer(content, dtype).reshape(shape)

    def _tried(self, name: str, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except InputError:
            raise
        except DAMAGED as error:
            raise InputError(f"{self.where}: {name} cannot be read: {str(error)[:200]}. Copy the file again.") from None


class _Measured(io.FileIO):
    """A file of which nobody reads much at once, whatever it says of its own parts."""

    def read(self, size: int | None = -1) -> bytes:
        """Raises ValueError if more is asked for than `CHUNK`, and a bit for its packing."""
        if size is not None and size > 2 * CHUNK:
            raise ValueError(f"a part of {size} bytes where {CHUNK} are the most")
        return super().read(2 * CHUNK if size is None or size < 0 else size) or b""


@contextmanager
def open_npz(path: Path) -> Iterator[Archive]:
    """Opens an archive.

    Raises:
        InputError: It is none.
    """

    def damaged(error: Exception) -> InputError:
        return InputError(
            f"{path} cannot be read as an archive of arrays (.npz): {str(error)[:200]}. Copy the file again."
        )

    try:
        file = _Measured(regular(path, "the file"))
    except OSError as error:
        raise damaged(error) from None
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except DAMAGED as error:
            raise damaged(error) from None
        with archive:
            yield Archive(path, archive)
