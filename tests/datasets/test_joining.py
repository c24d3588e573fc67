"""Descriptions of suites are compared by what an episode of theirs is."""

from typing import Any

from mtorl.datasets.joining import are_joined, contradiction, have_other_values, joined_suite, settings_of


def suite(tasks: list[str], **arguments: Any) -> dict[str, Any]:
    return {"class_path": "some.Suite", "init_args": {"tasks": tasks, **arguments}}


def test_values_of_single_tasks_are_united() -> None:
    one = suite(["a"], ids={"a": "x", "c": "x"}, horizon=5)
    other = suite(["b", "c"], ids={"b": "y", "c": "x"}, horizon=5)
    assert are_joined(one, other) and are_joined(other, one) and have_other_values(one, other)
    assert joined_suite([one, other])["init_args"] == {
        "tasks": ["a"],
        "ids": {"a": "x", "c": "x", "b": "y"},
        "horizon": 5,
    }
    assert joined_suite([one]) == one
    renamed = suite(["d"], ids={"d": "x"}, horizon=5)
    assert are_joined(one, renamed) and not have_other_values(one, renamed)


def test_a_task_is_one_thing() -> None:
    one, other = suite(["a"], ids={"a": "x"}), suite(["b"], ids={"b": "x", "a": "y"})
    assert contradiction(one, other) == "ids of the task 'a': 'x' and 'y'" and not are_joined(one, other)
    assert not contradiction(one, suite(["b"], ids={"b": "y"}))


def test_all_other_arguments_are_equal() -> None:
    one = suite(["a"], ids={"a": "x"}, wind={"strength": 1})
    assert settings_of(one) == {"ids": "one for each task", "wind": {"strength": 1}}
    for other in (
        suite(["a"], ids={"a": "x"}, wind={"strength": 2}),
        suite(["a"], ids={"a": "x"}, wind=None),
        suite(["a"], ids=None, wind={"strength": 1}),
        suite(["a"], ids=["x"], wind={"strength": 1}),
        suite(["a"], wind={"strength": 1}),
        suite(["a"], ids={"a": "x"}, wind={"strength": 1}) | {"class_path": "other.Suite"},
    ):
        assert not are_joined(one, other) and not are_joined(other, one)
    assert are_joined(one, suite(["a"], ids={"a": "x"}, wind={"strength": 1}, benchmark="MT10", fast=True))
    inner = [suite(["a"], ids={"a": "x"}), suite(["b"], ids={"b": "y"})]
    unions = [suite(["a"], suites=[it]) for it in inner]
    assert not are_joined(*unions), "suites in suites are compared whole"
