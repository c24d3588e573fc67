"""Pickles of numpy arrays in plain containers, read without running anything of them.

A pickle is a program: "load this name, call it with that". Python's own reader runs it, and its list of allowed names
only narrows what is run: numpy's `__setstate__` among it, which was not written for strangers. Here the few operations
that arrays, lists, dicts, tuples, texts and numbers need are carried out by this module itself. A name is a word in a
table, never an object; a call is a rule of this module; arrays are made of their bytes, after their shape was checked.
"""

import math
import pickletools
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.importers.npy_header import read_header
from mtorl.datasets.importers.pickle_reader import DAMAGED, PickledArray, PickleReader
from mtorl.files import regular

LARGEST = 1 << 26
"""Bytes of a file, at most: it is held in memory, where texts of it may take four times as much."""
OPERATIONS = 400_000
"""At most; an array takes about thirty."""


def read_object_array(path: Path) -> list[Any]:
    """The items of a .npy file that holds an array of objects, as `numpy.save` writes it.

    Args:
        path: The file.

    Returns:
        Plain values; arrays among them are `PickledArray`. A value may stand in it at several places, also in itself:
        go through it by known steps.

    Raises:
        InputError: It is damaged, too large, or holds something else than arrays in plain containers.
    """
    size = regular(path, "the file").stat().st_size
    if size > LARGEST:
        raise InputError(f"{path} has {size} bytes; expected at most {LARGEST}, as it is held in memory. Split it.")
    try:
        file = BytesIO(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    header = read_header(file, str(path))
    if header.dtype is not None:
        raise InputError(f"{path} is an array of numbers; expected an array of dicts, one for each episode.")
    array = read_pickle(file, str(path))
    if not isinstance(array, PickledArray) or not isinstance(array.content, list):
        raise InputError(f"{path} holds another value than its header says; expected an array of objects.")
    if len(array.content) != math.prod(header.shape):
        raise InputError(f"{path} holds {len(array.content)} objects; its header says {header.shape}. It is damaged.")
    return array.content


def read_pickle(file: BytesIO, where: str) -> Any:
    """The value of a pickle.

    Args:
        file: Standing at its first byte.
        where: Names it in messages.

    Raises:
        InputError: It is damaged, too long, or holds something else than arrays in plain containers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in names, which are refused as they are
            return _value(file, PickleReader(where))
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{where} is no sound pickle of arrays: {str(error)[:200]}. Copy the file again.") from None


def _value(file: BytesIO, reader: PickleReader) -> Any:
    for count, (operation, value, _) in enumerate(pickletools.genops(file)):
        if count > OPERATIONS:
            raise InputError(f"{reader.where} has more than {OPERATIONS} parts; expected few large arrays. Split it.")
        if operation.name == "STOP":
            break
        reader.do(operation.name, value)
    return reader.result()
