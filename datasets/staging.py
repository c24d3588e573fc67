"""New stores and files appear whole: they are written beside their place and renamed at the end."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mtorl import InputError
from mtorl.files import locked, refused_write


@contextmanager
def new_store(out: Path) -> Iterator[Path]:
    """Gives a folder to write a store into, which becomes `out` when the block ends without an error.

    Killed at any moment, `out` is either not there or complete; what was left beside it is removed by the next try.

    Args:
        out: Where the store is to be.

    Raises:
        InputError: Something is there already, another process is writing there, or the file system refuses.
    """
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty; expected a new folder. Choose another --out, or delete it.")
    with _staging(out) as staging:
        yield staging
        if out.exists():
            out.rmdir()
        staging.rename(out)


@contextmanager
def new_file(out: Path) -> Iterator[Path]:
    """Gives the path of a file to write, which becomes `out` when the block ends without an error; see `new_store`.

    Args:
        out: Where the file is to be.

    Raises:
        InputError: Something is there already, another process is writing there, or the file system refuses.
    """
    if out.exists():
        raise InputError(f"{out} exists; expected a new file. Choose another --out, or delete it.")
    with _staging(out) as staging:
        yield staging / out.name
        (staging / out.name).rename(out)


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, for this process alone, which is gone at the end."""
    staging = out.with_name(f".{out.name}.new")
    with locked(staging, "episodes"):
        try:
            for left in staging.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield staging
        except OSError as error:
            raise refused_write(out, error) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
