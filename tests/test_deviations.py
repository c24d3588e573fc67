"""What differs from a paper is numbered where the file begins, and marked where it bites.

A header (the docstring of a module or a class) numbers its deviations, in a list below `Deviations ...:` or as
`Deviation 1` in a sentence. The code says `# Deviation 1`, or `# Deviation 1 of other.py` where the header is that of
another file.
"""

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(path for room in ("agents", "trainers", "envs", "datasets") for path in (ROOT / room).rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def _headers(text: str) -> list[str]:
    nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Module | ast.ClassDef))
    return [ast.get_docstring(node) or "" for node in nodes]


def _numbered(headers: list[str]) -> list[int]:
    """The numbers that headers give to deviations, in their order: of lists, and those that only sentences have."""
    lists = [part for header in headers for part in header.split("\n\n") if re.match(r"Deviations\b", part)]
    listed = [number for part in lists for number in re.findall(r"^(\d+)\. ", part, re.MULTILINE)]
    said = dict.fromkeys(number for header in headers for number in re.findall(r"\bDeviation (\d+)", header))
    return [int(number) for number in [*listed, *(number for number in said if number not in listed)]]


def _unnumbered(header: str) -> list[str]:
    return re.findall(r"\bDeviations?(?! \d)(?: [\w ]+)?:(?!\n1\. ).{,40}", header)


@cache
def _marks(text: str) -> set[tuple[int, str]]:
    """The numbers in comments, each with the file whose header is meant; "": the comment's own."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    marks = set()
    for comment in comments:
        for numbers, file in re.findall(r"\b[Dd]eviations? (\d+(?:(?:, | and )\d+)*)(?: of (\w+\.py))?", comment):
            marks |= {(int(number), file) for number in re.findall(r"\d+", numbers)}
    return marks


def _faults(path: Path, others: list[Path]) -> list[str]:
    """What is wrong in one file, in words; `others` are those that its deviations may be marked in."""
    text = path.read_text()
    headers = _headers(text)
    numbers = _numbered(headers)
    faults = [f"has no number: {words}" for header in headers for words in _unnumbered(header)]
    if numbers != list(range(1, len(numbers) + 1)):
        faults.append(f"are numbered {numbers}; expected 1, 2, ... once each")
    marks = {number for number, file in _marks(text) if not file}
    marks |= {number for other in others for number, file in _marks(other.read_text()) if file == path.name}
    faults += [f"{number} is nowhere in the code" for number in sorted(set(numbers) - marks)]
    faults += [f"{number} is in the code, but not in the header" for number in sorted(marks - set(numbers))]
    known = {other.name for other in others}
    faults += [f"of {file}, which there is not" for _, file in sorted(_marks(text)) if file and file not in known]
    return faults


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_deviations_are_numbered_and_marked(path: Path) -> None:
    assert not _faults(path, FILES)


@pytest.mark.parametrize(
    ("header", "code", "faults"),
    [
        ("Deviations:\n1. One.\n2. Two.", "x = 1  # Deviation 1\ny = 2  # Deviation 2: why", []),
        ("Deviations from the paper:\n1. One\n   goes on.\n2. Two.", "x = 1  # Deviations 1 and 2", []),
        ("The same, but (Deviation 1) slower.", "x = 1  # deviation 1", []),
        ("1. A list of other things.", "x = 1", []),
        ("Deviations:\n1. One.\n2. Two.", "x = 1  # Deviation 2", ["1 is nowhere in the code"]),
        ("Deviations:\n1. One.", '"""Deviation 1"""', ["1 is nowhere in the code"]),
        ("No such thing.", "x = 1  # Deviation 1", ["1 is in the code, but not in the header"]),
        (
            "Deviations:\n1. One.\n1. Two.",
            "x = 1  # Deviation 1",
            ["are numbered [1, 1]; expected 1, 2, ... once each"],
        ),
        ("Deviation: one.", "x = 1", ["has no number: Deviation: one."]),
        ("Deviations: one; and two.", "x = 1", ["has no number: Deviations: one; and two."]),
        ("Deviations:\n1. One.\n2. Two.\n3. Three.", "x = 1  # Deviations 1 and 2", []),
        ("Nothing.", "x = 1  # Deviation 1 of missing.py", ["of missing.py, which there is not"]),
    ],
)
def test_what_is_found(header: str, code: str, faults: list[str], tmp_path: Path) -> None:
    path, other = tmp_path / "method.py", tmp_path / "other.py"
    path.write_text(f'"""A method.\n\n{header}\n"""\n\n{code}\n')
    other.write_text("y = 1  # Deviation 3 of method.py\n" if "3. " in header else "y = 1\n")
    assert _faults(path, [path, other]) == faults
