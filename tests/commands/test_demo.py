"""The demo: once through, interrupted and continued, and from an installed wheel alone."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from mtorl.commands.main import main

ROOT = Path(__file__).parents[2]
SMALL = ["--tasks", "drawer-close-v3", "--episodes", "2", "--steps", "10", "--goals", "2"]


@pytest.mark.simulator
@pytest.mark.slow
@pytest.mark.training
def test_interrupted_continued_and_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [*SMALL, "--workers", "0", "--quiet"]

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("words of a part")

    with monkeypatch.context() as patched:
        patched.setattr("mtorl.runs.run.Run.evaluate", stop)
        assert main(["demo", *options]) == 130
    message = capsys.readouterr().err
    assert "continue with the same command, `mtorl demo --tasks drawer-close-v3" in message and "part" not in message
    config = Path("mtorl-demo/run/config.yaml")
    begun = config.stat().st_mtime_ns

    assert main(["demo", *options]) == 0
    text = capsys.readouterr().out
    assert "$ mtorl train --resume mtorl-demo/run" in text and "expert: heldout protocol" in text
    content = json.loads(Path("mtorl-demo/report.json").read_text())
    assert text.endswith(
        f"mean success: {content['mean_success']:.1%} on goals that the policy has never seen\n"
        "report: mtorl-demo/report.html and mtorl-demo/report.json\n"
    )
    assert config.stat().st_mtime_ns == begun and [row["name"] for row in content["references"]] == ["expert", "random"]

    with monkeypatch.context() as patched:
        patched.setattr("mtorl.envs.collect.collect", stop)
        assert main(["demo", *options]) == 0
        text = capsys.readouterr().out
        assert "mtorl-demo is finished" in text and "$" not in text and "report: mtorl-demo/report.html" in text
    Path("mtorl-demo/demo.json").write_text("cut o")
    assert main(["demo", *options, "--goals", "1"]) == 0  # plays and reports anew
    assert json.loads(Path("mtorl-demo/report.json").read_text())["runs"][0]["tasks"][0]["episodes"] == 1
    capsys.readouterr()
    assert main(["demo", *options, "--steps", "20"]) == 2
    assert "holds a run of 10 steps; asked for were 20" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "message"), [("--goals", "goals is 0"), ("--steps", "steps is 0")])
def test_refused_before_anything_is_done(
    option: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["demo", option, "0", "--out", str(tmp_path / "demo")]) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.simulator
@pytest.mark.slow
@pytest.mark.training
def test_from_a_wheel_without_the_repository(tmp_path: Path) -> None:
    """Everything else that it needs is taken from this environment."""
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git repository to make a wheel of")
    for name in tracked.stdout.split("\0"):
        if name and os.path.lexists(ROOT / name):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(source)], capture_output=True, text=True
    )
    if made.returncode and "setuptools" in made.stderr:
        pytest.skip("setuptools cannot be had here")
    assert made.returncode == 0, made.stderr
    venv.create(tmp_path / "venv", with_pip=False)
    library = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    (wheel,) = wheels.glob("mtorl-*.whl")
    subprocess.run([*pip, "--python", str(tmp_path / "venv"), "install", "--no-deps", str(wheel)], check=True)
    (library / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    command, free = tmp_path / "venv/bin/mtorl", {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    where = subprocess.run(
        [command.with_name("python"), "-c", "import mtorl; print(mtorl.__file__)"],
        cwd=tmp_path,
        env=free,
        capture_output=True,
        text=True,
    )
    assert where.stdout.startswith(str(library)), where
    result = subprocess.run([command, "demo", *SMALL], cwd=tmp_path, env=free, capture_output=True, text=True)
    assert result.returncode == 0 and "report: mtorl-demo/report.html" in result.stdout, result.stderr
    assert f"{library}/mtorl/configs/bc_mt10.yaml" in result.stdout


def test_make_demo_says_options_that_there_are() -> None:
    """What the Makefile asks for reaches the function as it was typed."""
    from mtorl.commands.base import objects, parser_of
    from mtorl.commands.demo import demo

    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    named = re.findall(r"--(\w+)", makefile.split("mtorl demo --out")[1].split("\n\n")[0])
    words = [word for name in named for word in (f"--{name}", "7")]
    options = objects(parser_of("demo", demo), words)
    assert named and all(str(options[name]) == "7" for name in named)
