"""The lowest versions that are tested are those that pyproject.toml allows."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
HELD = {"torch"}
"""Tested with one version only: the oldest has no small build."""
TOOLS = {"ruff", "mypy"}
"""Which tests do not use."""


def pinned(name: str) -> dict[str, Version]:
    """The versions that a file of constraints names."""
    lines = re.findall(r"^([\w-]+)==(\S+)$", (ROOT / name).read_text(), re.MULTILINE)
    return {package.replace("_", "-").lower(): Version(version) for package, version in lines}


def test_the_lowest_versions_are_those_that_are_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found, lowest = (
        [*project["dependencies"], *project["optional-dependencies"]["dev"]],
        pinned("constraints-lowest.txt"),
    )
    for requirement in map(Requirement, found):
        name = requirement.name.replace("_", "-").lower()
        least = [Version(it.version) for it in requirement.specifier if it.operator == ">="]
        if least and name not in TOOLS:
            assert lowest[name] == least[0] or name in HELD, requirement
            assert requirement.specifier.contains(lowest[name])


def test_both_files_of_constraints_hold_what_figures_depend_on() -> None:
    usual, lowest = pinned("constraints.txt"), pinned("constraints-lowest.txt")
    for name in ("torch", "mujoco", "metaworld"):
        assert usual[name] == lowest[name]
    assert all(lowest[name] <= version for name, version in usual.items() if name in lowest)
