"""Files of text of strangers: what a data set says of itself, in JSON."""

import json
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.files import regular

LARGEST = 1 << 26
"""Bytes of such a file, at most: it is held in memory."""


def read_text(file: Path) -> bytes:
    """All of a file; raises InputError if it is too large or cannot be read."""
    try:
        size = regular(file, "the file").stat().st_size
        if size > LARGEST:
            raise InputError(f"{file} has {size} bytes; expected at most {LARGEST}.")
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}.") from error


def parse_json(text: str | bytes, what: str, remedy: str) -> Any:
    """The value that a text states.

    Args:
        text: Read from a file.
        what: Names it in messages.
        remedy: What can be done, a sentence.

    Raises:
        InputError: It is no JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is no JSON: {str(error)[:200]}. {remedy}") from None
