"""The head of an array in numpy's .npy format, read without evaluating anything of it.

`numpy.lib.format` hands the text to Python's own parser, which deeply nested brackets bring down; here it has to have
the form that numpy writes.
"""

import math
import re
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from mtorl import InputError

LONGEST = 4096
"""Bytes of the text, at most: it names one type and a few lengths."""
DIMENSIONS = 8
"""At most."""
OBJECT = "O"
_MAGIC = b"\x93NUMPY"
_WIDTH = {1: 2, 2: 4, 3: 4}
"""Bytes of the text's length, by version of the format."""
_FORM = re.compile(
    r"\{'descr': '(?P<order>[<>|=]?)(?P<kind>[a-zA-Z])(?P<size>\d{0,4})(?:\[\w+\])?', "
    r"'fortran_order': (?P<columns>True|False), 'shape': \((?P<shape>[\dL, ]*)\),? ?\}\s*"
)
_SIZES = {"b": "1", "i": "1248", "u": "1248", "f": "248"}


@dataclass(frozen=True)
class Header:
    """What an array is like.

    Attributes:
        dtype: Of real numbers; flags are bytes, which need not be 0 or 1. None: Python objects, pickled.
        shape: Its lengths.
        columns: Whether it stands in the file by columns (Fortran's order).
    """

    dtype: np.dtype[Any] | None
    shape: tuple[int, ...]
    columns: bool

    @property
    def size(self) -> int:
        """Bytes of all its numbers."""
        return math.prod(self.shape) * (self.dtype.itemsize if self.dtype else 1)


def read_header(file: IO[bytes], where: str) -> Header:
    """Reads the head of an array; the file stands at the first number then.

    Args:
        file: Standing at the array's first byte.
        where: Names the array in messages.

    Raises:
        InputError: It is no such head, or the array holds something else than real numbers or objects.
    """
    start = file.read(8)
    if start[:6] != _MAGIC or len(start) < 8 or start[6] not in _WIDTH:
        raise InputError(f"{where} does not begin as an array of numpy (.npy 1.0 to 3.0). Save it with numpy again.")
    length = int.from_bytes(file.read(_WIDTH[start[6]]), "little")
    if length > LONGEST:
        raise InputError(f"{where} has a header of {length} bytes; expected at most {LONGEST}. It is damaged.")
    found = _FORM.fullmatch(file.read(length).decode("latin-1"))
    if not found:
        raise InputError(
            f"{where} has a header that is not understood; expected one type of numbers, no named columns. Save its "
            "columns as arrays of their own."
        )
    numbers = [part.strip(" L") for part in found["shape"].split(",")]
    shape = tuple(int(part) for part in numbers if part.isdecimal() and len(part) < 16)
    if len(shape) != sum(map(bool, numbers)) or len(shape) > DIMENSIONS:
        raise InputError(f"{where} has the shape ({found['shape'][:80]}); expected lengths. It is damaged.")
    columns = found["columns"] == "True"
    if found["kind"] == OBJECT:
        return Header(None, shape, columns)
    return Header(dtype_of(found["order"], found["kind"] + found["size"], where), shape, columns)


def dtype_of(order: str, name: str, where: str) -> np.dtype[Any]:
    """The type of real numbers of that name, such as `<` and `f4`; of flags (`b1`), that of their bytes.

    Raises:
        InputError: It is none.
    """
    if order not in ("", "<", ">", "|", "=") or name[1:] not in {*_SIZES.get(name[:1], "")}:
        raise InputError(f"{where} is of type {order}{name}; expected real numbers of up to 8 bytes, or flags.")
    return np.dtype("u1" if name == "b1" else f"{order}{name}")
