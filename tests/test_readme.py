"""What the README shows is run; what it and the site name is there. Commands: see `test_docs.py`."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pages import DOCS, ROOT, blocks, name_of, pages

README = ROOT / "README.md"


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) < 200


@pytest.mark.simulator
@pytest.mark.slow
def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    first, second = (block.code for block in blocks(DOCS / "guides/python.md") if block.language == "python")
    assert [block.code for block in blocks(README) if block.language == "python"] == [first]
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
    code = first + second
    for long, short, times in (
        ('MetaWorld("MT10")', 'MetaWorld(tasks=["drawer-open-v3"])', 1),
        ("episodes=40", "episodes=2", 1),
        ("steps=3000", "steps=20", 2),
        ("evaluate(run)", "evaluate(run, goals=2)", 1),
    ):
        assert code.count(long) == times, long
        code = code.replace(long, short)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    code = code.replace('"reach-v3"', '"drawer-open-v3"')
    variables: dict = {"__name__": "example", "observation": np.zeros(39, np.float32)}
    exec(compile(code, "README.md", "exec"), variables)
    assert "drawer-open-v3" in capsys.readouterr().out
    assert (tmp_path / "runs/bc/report.html").exists()
    assert variables["action"].shape == (4,)
    assert variables["run"].configuration.plain["sharing"]["init_args"]["sparsity"] == 0.3


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_scripts_files_and_targets_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(
        r"((?:benchmarks|configs|tests|trainers|agents|envs|datasets)/[a-z0-9_/]+\.(?:py|yaml))", text
    ):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+)|`make ([a-z]+)`", text, re.MULTILINE):
        assert f"\n{target[0] or target[1]}:" in makefile, target
    for block in blocks(page):
        if block.language == "python":
            compile(block.code, name_of(page), "exec")


def test_the_result_tables_are_those_of_the_results() -> None:
    result = subprocess.run([sys.executable, ROOT / "benchmarks/readme.py", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_table_has_its_page() -> None:
    for name, table in _tables().items():
        shown = re.findall(r"<!-- results: (\w+) -->", (DOCS / f"results/{name}.md").read_text())
        assert table() and shown == [name]


def _tables() -> dict[str, Callable[[], str]]:
    """All tables that the script makes."""
    spec = importlib.util.spec_from_file_location("result_tables", ROOT / "benchmarks/readme.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BLOCKS


def test_every_extra_is_explained() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", README.read_text().partition("| extra |")[2], re.MULTILINE)
    assert sorted(re.findall(r"\w+", " ".join(rows))) == sorted(extras)
