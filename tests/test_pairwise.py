"""Few combinations show every pair."""

from itertools import product

import pytest
from families import AGENT_OPTIONS, AGENT_VARIANTS, ONCE, agent_rows
from pairwise import cover, pairs


def rows(*sizes: int) -> list[dict]:
    """All combinations of options with that many values each."""
    return [{f"option {place}": value for place, value in enumerate(it)} for it in product(*map(range, sizes))]


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3, 3), (2, 3, 4, 2), (5, 1, 2), (2,) * 8])
def test_every_pair_is_covered_by_few_of_the_combinations(sizes: tuple[int, ...]) -> None:
    all_rows = rows(*sizes)
    chosen = cover(all_rows)
    assert all(row in all_rows for row in chosen)
    assert set().union(*map(pairs, chosen)) == set().union(*map(pairs, all_rows))
    least = sorted(sizes)[-1] * sorted(sizes)[-2]
    assert least <= len(chosen) <= 2 * least
    assert cover(all_rows) == chosen


def test_what_is_not_allowed_is_not_asked_for() -> None:
    allowed = [row for row in rows(3, 3, 2) if row["option 0"] != 2 or row["option 1"] == 0]
    chosen = cover(allowed)
    assert all(row in allowed for row in chosen)
    assert set().union(*map(pairs, chosen)) == set().union(*map(pairs, allowed))


def test_options_that_are_shown_once_occur_with_every_value() -> None:
    all_rows = rows(9, 2, 2)
    assert len(cover(all_rows, once=("option 0",))) == 9 < len(cover(all_rows))
    assert {row["option 0"] for row in cover(all_rows, once=("option 0",))} == set(range(9))


def test_the_agents_under_contract_show_every_value_of_every_option_and_every_pair() -> None:
    chosen, possible = cover(agent_rows(), ONCE), agent_rows()
    assert len(chosen) == len(AGENT_VARIANTS) == len({variant.id for variant in AGENT_VARIANTS}) < 55
    assert set().union(*(pairs(row, ONCE) for row in chosen)) == set().union(*(pairs(row, ONCE) for row in possible))
    for kind, options in AGENT_OPTIONS.items():
        for name, values in options.items():
            assert {row[name] for row in chosen if row["kind"] is kind} == set(values), (kind, name)
