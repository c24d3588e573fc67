"""Writing files so that nothing half-written is ever read as complete."""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from mtorl import InputError


class DamageWarning(UserWarning):
    """Something of what was to be shown could not be read; the rest is shown. Commands then end with exit code 1."""


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file under a temporary name, forces it to disk and renames it.

    Args:
        path: The final name. Whoever opens it sees the old content or the whole new one.
        write: Called with the open temporary file.

    Raises:
        InputError: The file system refused (disk full, quota, permissions). The old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise refused_write(path, error) from error


def refused_write(path: Path, error: OSError) -> InputError:
    """What to tell the user when the file system does not take a file."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    remedy = "Free some space" if full else "Make it writable, or choose another folder"
    return InputError(
        f"could not write {path}: {error.strerror or error}. What was complete before is untouched. {remedy}, then "
        "continue with the same command (a training run with `mtorl train --resume`)."
    )


@contextmanager
def locked(folder: Path, doing: str) -> Iterator[None]:
    """Keeps a folder to this process; the operating system frees it however the process ends.

    Args:
        folder: Made if it is missing.
        doing: What this process does there, for the message that another one gets.

    Raises:
        InputError: Another process is at work there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"could not open {folder}: {error.strerror or error}.") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(
            f"another process is at work in {folder}; two would overwrite each other's {doing}. Wait for it, or "
            "choose another folder."
        ) from None
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Removes temporary files that a killed process left in a folder; nobody else may be writing there."""
    for path in folder.glob(".*"):
        if path.suffix in (".tmp", ".raw") and path.is_file():
            path.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def regular(path: Path, what: str) -> Path:
    """The path, if it is no pipe, device or folder: opening one of those may wait for ever.

    Args:
        path: A file; it need not exist.
        what: What it is, for the message.

    Raises:
        InputError: Something else is there.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or device"
        raise InputError(f"{what} {path} is {kind}; expected a regular file. Put the file itself there.")
    return path


def read_json(path: Path, what: str) -> Any:
    """Reads a JSON file.

    Args:
        path: The file.
        what: What it is, for the message when it cannot be read.

    Raises:
        InputError: The file is missing, no regular file, or is not JSON.
    """
    try:
        return json.loads(regular(path, what).read_text())
    except FileNotFoundError:
        raise InputError(f"{what} not found: expected the file {path}.") from None
    except InputError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{what} {path} cannot be read: {error}.") from error


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with regular(path, "the file").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
