"""What files must hold, and how a fault is told."""

from typing import Any

import pytest

from mtorl import InputError
from mtorl.schema import (
    Flag,
    Integer,
    ListOf,
    MappingOf,
    Names,
    Nullable,
    Number,
    Plain,
    Record,
    Text,
    check,
    check_version,
)

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("kind", "good", "bad", "expected"),
    [
        (Text(), ("", "x"), (1, None, [], {}), "a string"),
        (Text(("a", "b")), ("a",), ("c", None), "one of a, b"),
        (Flag(), (True, False), (0, 1, 1.0, "true", None), "true or false"),
        (Integer(1), (1, 2**63 - 1), (0, -3, 1.0, True, "1", NAN, 2**63, None), "an integer of at least 1"),
        (Integer(0, 3), (0, 3), (-1, 4), "an integer in [0, 3]"),
        (Number(), (0, -1.5, 1e38), (NAN, INFINITY, -INFINITY, 1e39, 10**400, True, "1", None), "a finite number"),
        (Number(0), (0, 2.5), (-1e-9, NAN), "a finite number of at least 0"),
        (Number(0, 1), (0, 1), (1.1, -0.1, NAN), "a finite number in [0, 1]"),
        (Nullable(Flag()), (None, True), (0,), "true or false"),
        (ListOf(Flag()), ([], [True]), (1, "x", {}, None), "a list"),
        (ListOf(Flag(), least=1), ([True],), ([],), "a list of at least 1"),
        (Names(), (["a", "b"],), ([], "ab"), "a list of at least 1"),
        (MappingOf(Flag()), ({}, {"x": True}), ([], 1, None), "an object"),
        (Plain(), (None, 1, [{"x": (1.5, "y")}]), (NAN, {1, 2}, b"x"), "a plain value"),
        (Record({}), ({}, {"more": 1}), ([], None), "an object"),
    ],
)
def test_kinds(kind: Any, good: tuple, bad: tuple, expected: str) -> None:
    for value in good:
        check({"field": value}, Record({"field": kind}), "the file")
    for value in bad:
        with pytest.raises(InputError) as error:
            check({"field": value}, Record({"field": kind}), "the file", "Mend it.")
        text = str(error.value)
        assert text.startswith("the file is malformed: field is ") and text.endswith(f"; expected {expected}. Mend it.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, r"it lacks \['width', 'rows'\]"),
        ({"width": 2, "rows": []}, r"rows counts 0; expected 3"),
        ({"width": 2, "rows": [[1, 2], [1], [1, 2]]}, r"rows\[1\] counts 1; expected 2, as width"),
        ({"width": 2, "rows": [[1, 2], [1, NAN], [1, 2]]}, r"rows\[1\]\[1\] is nan; expected a finite number"),
        (
            {"width": 2, "rows": [[1, 2]] * 3, "names": ["a", "b", "a"]},
            "names names 'a' twice; expected every name once",
        ),
        ({"width": 2, "rows": [[1, 2]] * 3, "odd": 1}, r"it holds unknown \['odd'\]"),
        ({"width": 2, "rows": [[1, 2]] * 3, 7: 1}, "it has the key 7; expected strings"),
        ({"width": 2, "rows": {"x": 1}}, "rows is an object of 1; expected a list"),
    ],
)
def test_the_first_fault_is_named_by_its_path(content: dict, message: str) -> None:
    kind = Record(
        {"width": Integer(1, axis="O"), "rows": ListOf(ListOf(Number(), "O"), 3)}, {"names": Names()}, closed=True
    )
    with pytest.raises(InputError, match=f"^the file is malformed: {message}"):
        check(content, kind, "the file")


def test_content_nested_without_end_is_refused() -> None:
    content: list = []
    for _ in range(100_000):
        content = [content]
    with pytest.raises(InputError, match="nested too deeply"):
        check(content, Plain(), "the file")


def test_versions() -> None:
    check_version({"schema": 2}, 2, "the file")
    for content in ({"schema": 0}, {"schema": "1"}, {"schema": True}, {}, [], None):
        with pytest.raises(InputError, match="the file is malformed: expected an object with a schema number"):
            check_version(content, 2, "the file")
    with pytest.raises(InputError, match="the file has schema 3; this version of mtorl reads up to 2"):
        check_version({"schema": 3}, 2, "the file")
