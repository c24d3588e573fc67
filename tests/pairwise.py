"""Few combinations of options instead of all: every two values that can stand together do so in one of them."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from itertools import combinations

Values = frozenset[tuple[str, Hashable]]


def pairs(row: Mapping[str, Hashable], once: Collection[str] = ()) -> set[Values]:
    """Every two values of a combination, with the options that they are of; those of options in `once` of each kind."""
    alone = {frozenset([value, ("kind", row.get("kind"))]) for value in row.items() if value[0] in once}
    return alone | {frozenset(pair) for pair in combinations([it for it in row.items() if it[0] not in once], 2)}


def cover(rows: Sequence[Mapping[str, Hashable]], once: Collection[str] = ()) -> list[Mapping[str, Hashable]]:
    """Of all combinations that are allowed some that hold every pair that any of them holds.

    Each next one is the first of those that add most: about as few as there can be, and always the same. Options in
    `once` have too many values for pairs: each of their values occurs.
    """
    numbers: dict[Values, int] = {}
    found = [sum(1 << numbers.setdefault(it, len(numbers)) for it in pairs(row, once)) for row in rows]
    left, chosen = (1 << len(numbers)) - 1, []
    while left:
        best = max(range(len(rows)), key=lambda number: (found[number] & left).bit_count())
        left &= ~found[best]
        chosen.append(rows[best])
    return chosen
