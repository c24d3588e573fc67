"""New stores appear whole: they are written beside their place and renamed at the end."""

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
    staging = out.with_name(f".{out.name}.new")
    with locked(staging, "episodes"):
        try:
            for left in staging.iterdir():
                left.unlink()
            yield staging
            if out.exists():
                out.rmdir()
            staging.rename(out)
        except OSError as error:
            raise refused_write(out, error) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
