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
def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    for long, short in (
        ('MetaWorld("MT10")', 'MetaWorld(tasks=["drawer-open-v3"])'),
        ("episodes=40", "episodes=2"),
        ("steps=3000", "steps=20"),
    ):
        assert long in code
        code = code.replace(long, short)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    exec(compile(code, "README.md", "exec"), {"__name__": "example"})
    assert "drawer-open-v3" in capsys.readouterr().out
    assert (tmp_path / "runs/bc/report.html").exists()


def test_commands_and_files_exist() -> None:
    for name in re.findall(r"`(benchmarks/[a-z0-9_]+\.py|configs/[a-z0-9_/]+\.yaml)`", README):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z]+)", README, re.MULTILINE):
        assert f"\n{target}:" in makefile, target


def test_the_result_tables_are_those_of_the_results() -> None:
    result = subprocess.run([sys.executable, ROOT / "benchmarks/readme.py", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
