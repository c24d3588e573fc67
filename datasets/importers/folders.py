"""Files of a folder of strangers: what is in it, and nothing that it points to elsewhere."""

import re
from pathlib import Path

from mtorl import InputError


def listed(folder: Path, root: Path) -> list[Path]:
    """What is in a folder, hidden files aside, numbers in their order: 2 before 10.

    Args:
        folder: In `root`, or the same.
        root: What the user named.

    Raises:
        InputError: It cannot be read, or something in it lies outside of `root`.
    """
    try:
        found = sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=_order)
        home = root.resolve()
        outside = [path for path in found if path.is_symlink() and not path.resolve().is_relative_to(home)]
    except (OSError, RuntimeError) as error:  # links in a circle
        raise InputError(f"{folder} cannot be read: {str(error)[:200]}.") from None
    if outside:
        raise InputError(
            f"{outside[0]} is a link to a place outside of {root}; it is not followed. If it is yours, name the place "
            "itself, or copy it."
        )
    return found


def _order(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = re.findall(r"[0-9]{1,15}|[^0-9]+|[0-9]", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name
