"""Where Minari keeps its data sets on this machine: folders `<namespace>/<name>-v<number>/data`."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mtorl import InputError

VARIABLE = "MINARI_DATASETS_PATH"
HEAD_KEY = "mtorl"
"""Of its metadata.json: what our data sets say of themselves, see `datasets.enclosed`."""
DEPTH = 6
"""Folders between the root and a data set, at most."""


def minari_root(root: str | None = None) -> Path:
    """The folder of all local data sets: the given one, that of MINARI_DATASETS_PATH, or ~/.minari/datasets."""
    return Path(root or os.environ.get(VARIABLE) or Path.home() / ".minari/datasets")


def check_id(name: str) -> None:
    """Raises InputError unless Minari would take a name of a data set, such as D4RL/door/human-v2."""
    if not re.fullmatch(r"(?:[\w-]{2,}/)*[\w-]+-v\d+", name, re.ASCII):
        raise InputError(
            f"{name!r} is no name of a Minari data set; expected namespaces, a name and a version, as in "
            "my/pointreach-v0: letters, digits, _ and -."
        )


def local_ids(root: Path, depth: int = DEPTH) -> Iterator[str]:
    """Names of the data sets below a folder, sorted; links are not followed."""
    try:
        inner = sorted(path for path in root.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return
    for path in inner:
        if (path / "data/metadata.json").is_file():
            yield path.name
        elif depth and not path.name.startswith("."):
            yield from (f"{path.name}/{name}" for name in local_ids(path, depth - 1))
