"""Where the parts of an episode stand in an archive of arrays, and how its rows are cut into episodes.

| layout | its rows | an episode ends |
|---|---|---|
| `file` | one episode; observations may have one row more than actions | with the file |
| `steps` | one step each | where `terminals` (or `dones`) or `timeouts` are 1 |
| `ogbench` | one state each, and the step from it to the next row | where `terminals` are 1; no step from there |

`ogbench` is the rule of OGBench's own loader (`ogbench/utils.py`, `load_dataset`, MIT licence; read, not copied): the
last row of an episode is dropped from observations and actions, and is the next observation of the row before.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.importers.archives import CHUNK, WHOLE, Archive
from mtorl.datasets.importers.raw_episodes import check_table, column, table

Choice = Literal["auto", "steps", "ogbench"]
Role = Literal["observations", "actions", "rewards", "next_observations", "terminals", "timeouts", "success"]
ROLES: tuple[Role, ...] = get_args(Role)
ENDS: tuple[Role, ...] = ("terminals", "timeouts")
USUAL: Mapping[Role, Sequence[str]] = {
    **{role: (role,) for role in ROLES},
    "terminals": ("terminals", "dones", "terminations"),
    "timeouts": ("timeouts", "truncations"),
}
"""Names that arrays have where nothing else is said."""
_WIDE: tuple[Role, ...] = ("observations", "next_observations", "actions")
_OGBENCH = {"qpos", "qvel", "button_states"}
"""What its files hold beside observations, actions and terminals."""
_BLOCK = 1 << 14
"""Rows that are read at once, at most."""

Rows = dict[Role, NDArray[Any]]
"""The rows of one episode."""


@dataclass(frozen=True)
class Layout:
    """How an archive is laid out.

    Attributes:
        kind: See above.
        keys: Names of its arrays, by what they are.
        dimensions: O and A.
        rows: How many rows each array has; with `file`, of actions.
        unused: Names of the arrays that are not read.
    """

    kind: Literal["file", "steps", "ogbench"]
    keys: dict[Role, str]
    dimensions: tuple[int, int]
    rows: int
    unused: tuple[str, ...]


def layout_of(archive: Archive, named: Mapping[Role, str], choice: Choice) -> Layout:
    """Finds out how an archive is laid out.

    Args:
        archive: It.
        named: Names of its arrays, where they are not the usual ones; an empty name leaves one out.
        choice: `auto`: by what is in it.

    Raises:
        InputError: Something is missing, or has a shape that does not fit the rest.
    """
    usual = {role: next((name for name in USUAL[role] if name in archive.names), "") for role in ROLES}
    keys = {role: name for role, name in {**usual, **named}.items() if name}
    unused = tuple(name for name in archive.names if name not in keys.values())
    if choice == "auto":
        ogbench = set(keys) == {"observations", "actions", "terminals"} and set(unused) <= _OGBENCH
        choice = "ogbench" if ogbench and not named else "steps"
    needed: list[Role] = ["observations", "actions"]
    needed += ["terminals"] if choice == "ogbench" else ["rewards"] if "rewards" not in named else []
    missing: list[str] = [role for role in needed if role not in keys]
    missing += [name for name in keys.values() if name not in archive.names]
    if missing:
        raise InputError(
            f"{archive.where} has no arrays {', '.join(missing)}; it has {', '.join(archive.names) or 'none'}. Say "
            f"which are which with --keys '{{{missing[0]}: NAME}}'; an empty name leaves rewards, flags or next "
            "observations out."
        )
    ends = any(role in keys for role in ENDS)
    kind: Literal["file", "steps", "ogbench"] = "ogbench" if choice == "ogbench" else "steps" if ends else "file"
    return Layout(kind, keys, *_sizes(archive, keys, kind), unused)


def _sizes(archive: Archive, keys: Mapping[Role, str], kind: str) -> tuple[tuple[int, int], int]:
    """O and A, and the number of rows."""
    headers = {role: archive.header(name) for role, name in keys.items()}
    sizes = {
        role: check_table(headers[role].shape, headers[role].dtype, keys[role], archive.where)
        for role in _WIDE
        if role in keys
    }
    rows = headers["actions"].shape[0]
    for role, header in headers.items():
        allowed = (rows, rows + 1) if kind == "file" and role == "observations" else (rows,)
        count = header.shape[0] if header.shape else 0
        if count not in allowed or (role not in _WIDE and header.shape not in ((count,), (count, 1))):
            raise InputError(
                f"{archive.where}: {keys[role]} have the shape {header.shape}, {keys['actions']} "
                f"{headers['actions'].shape}; expected one row for each step."
            )
    if not rows:
        raise InputError(f"{archive.where} has no steps; expected at least one.")
    if sizes.get("next_observations", sizes["observations"]) != sizes["observations"]:
        raise InputError(
            f"{archive.where}: {keys['next_observations']} have {sizes['next_observations']} numbers each, "
            f"{keys['observations']} {sizes['observations']}."
        )
    return (sizes["observations"], sizes["actions"]), rows


def episodes_of(archive: Archive, layout: Layout) -> Iterator[Rows]:
    """The rows of one episode after the other; of the last one up to the end of the file.

    Raises:
        InputError: The archive is damaged, or an episode too long.
    """
    if layout.kind == "file":
        held = sum(archive.header(name).size for name in layout.keys.values())
        if held > WHOLE:
            raise InputError(f"{archive.where}: an episode has {held} bytes; expected at most {WHOLE}. Split it.")
        yield {role: _formed(role, archive.whole(name), archive.where) for role, name in layout.keys.items()}
        return
    parts: list[Rows] = []
    held = 0
    for block in _blocks(archive, layout, tuple(layout.keys)):
        begin = 0
        for end in [*ends_of(block), len(block["actions"])]:
            part = {role: values[begin:end] for role, values in block.items()}
            held += sum(values.nbytes for values in part.values())
            if held > WHOLE:
                raise InputError(f"{archive.where}: an episode has more than {WHOLE} bytes. Split it.")
            parts += [part] if end > begin else []
            if end > begin and ends_of(part):
                yield _joined(parts)
                parts, held = [], 0
            begin = end
    if parts:
        yield _joined(parts)


def ends_of(rows: Rows) -> list[int]:
    """How many rows there are up to the end of each episode that ends in them."""
    flags = [rows[role] for role in ENDS if role in rows]
    return (np.flatnonzero(np.logical_or.reduce(flags)) + 1).tolist()


def count_ends(archive: Archive, layout: Layout) -> tuple[int, bool]:
    """How many episodes an archive holds, and whether the last one has an end; reads flags alone."""
    if layout.kind == "file":
        return 1, True
    count, row, last = 0, 0, 0
    for block in _blocks(archive, layout, tuple(role for role in ENDS if role in layout.keys)):
        stops = [row + stop for stop in ends_of(block)]
        steps = np.diff([last, *stops]) - (layout.kind == "ogbench")
        count, last = count + int((steps > 0).sum()), stops[-1] if stops else last
        row += len(next(iter(block.values())))
    unfinished = row - last > (layout.kind == "ogbench")
    return count + unfinished, not unfinished


def _blocks(archive: Archive, layout: Layout, roles: Sequence[Role]) -> Iterator[Rows]:
    """Blocks of rows of these arrays."""
    widest = max(archive.header(layout.keys[role]).size for role in roles) // layout.rows
    size = max(1, min(_BLOCK, CHUNK // max(1, widest)))
    for start in range(0, layout.rows, size):
        stop = min(start + size, layout.rows)
        yield {role: _formed(role, archive.rows(layout.keys[role], start, stop), archive.where) for role in roles}


def _formed(role: Role, values: NDArray[Any], where: str) -> NDArray[Any]:
    return table(values, role, where) if role in _WIDE else column(values, role, where, len(values))


def _joined(parts: Sequence[Rows]) -> Rows:
    return parts[0] if len(parts) == 1 else {role: np.concatenate([part[role] for part in parts]) for role in parts[0]}
