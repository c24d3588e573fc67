"""What the README shows is run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.simulator
@pytest.mark.slow
def test_the_python_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    first, second = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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
    variables: dict = {"__name__": "example"}
    exec(compile(code, "README.md", "exec"), variables)
    assert "drawer-open-v3" in capsys.readouterr().out
    assert (tmp_path / "runs/bc/report.html").exists()
    assert variables["policy"].task_names == ("drawer-open-v3",)
    assert variables["run"].configuration.plain["sharing"]["init_args"]["sparsity"] == 0.3


def test_commands_and_files_exist() -> None:
    for name in re.findall(r"`(benchmarks/[a-z0-9_]+\.py|configs/[a-z0-9_/]+\.yaml)`", README):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile, target


def test_the_result_tables_are_those_of_the_results() -> None:
    result = subprocess.run([sys.executable, ROOT / "benchmarks/readme.py", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
