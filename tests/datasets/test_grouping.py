import json
from pathlib import Path

import pytest

from mtorl import InputError
from mtorl.datasets.grouping import Grouping, same_groups

ONE = Grouping(("a", "b", "c"), (0, 1, 0), ((1.0, 0.1, 0.9), (0.1, 1.0, 0.2), (0.9, 0.2, 1.0)), 0.7, "by hand")


def test_a_grouping_is_a_file(tmp_path: Path) -> None:
    ONE.save(tmp_path / "groups.json")
    assert Grouping.load(tmp_path / "groups.json") == ONE and ONE.count == 2
    assert ONE.labels_of(("c", "b")) == [0, 1]
    with pytest.raises(InputError, match=r"tasks \['d'\] are in no group"):
        ONE.labels_of(("a", "d"))


def test_groups_of_some_tasks_have_no_gaps() -> None:
    assert ONE.groups_of(("b",)) == (0,) and ONE.groups_of(("b", "a", "c")) == (1, 0, 0)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [((0, 1, 0), (1, 0, 1), True), ((0, 1, 0), (0, 1, 2), False), ((0, 0, 0), (0, 1, 0), False), ((0,), (0, 0), False)],
)
def test_groups_are_the_same_whatever_their_numbers(one: tuple, other: tuple, same: bool) -> None:
    assert same_groups(one, other) == same_groups(other, one) == same


@pytest.mark.parametrize(
    ("labels", "message"),
    [((0, 1), "3 tasks has 2 labels"), ((0, 2, 0), r"groups are \[0, 2\]"), ((1, 1, 1), r"groups are \[1\]")],
)
def test_wrong_groupings_are_refused(labels: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Grouping(ONE.task_names, labels, ONE.affinity, 0.0, "")


def test_a_malformed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    ONE.save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"labels": [0, 3, 0]}))
    with pytest.raises(InputError, match=r"grouping .*groups\.json: the groups are \[0, 3\]; expected 0"):
        Grouping.load(path)
    path.write_text('{"schema": 1, "labels": "x"}')
    with pytest.raises(InputError, match=r"grouping .*groups\.json"):
        Grouping.load(path)
    path.write_text('{"schema": 9}')
    with pytest.raises(InputError, match=r"groups\.json"):
        Grouping.load(path)
