"""What belongs to a package beside its code: tested extras, files that tools read, coverage that only rises."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from extras import EXTRAS

import mtorl
from mtorl.commands.main import COMMANDS

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OPTIONAL = PROJECT["project"]["optional-dependencies"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("extra", sorted(OPTIONAL.keys() - {"dev"}))
def test_every_extra_is_used_by_a_test_that_is_skipped_without_it(extra: str) -> None:
    assert extra in EXTRAS, f"name a test that uses the extra {extra} in tests/extras.py"
    for path, question in EXTRAS[extra].items():
        text = (ROOT / path).read_text()
        assert question in text and "skip" in text, path


def commands(workflow: Path) -> list[tuple[str, dict]]:
    """Lines that a workflow runs, each with its job."""
    jobs = yaml.safe_load(workflow.read_text())["jobs"].values()
    steps = [(step["run"], job) for job in jobs for step in job["steps"] if "run" in step]
    assert steps
    return steps


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda it: it.stem)
def test_workflows_run_what_there_is(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line, job in commands(workflow):
        make = re.match(r"make (\w+)(.*)", line)
        if make:
            assert make[1] in targets, line
            variables = re.findall(r"(\w+)=", make[2])
            assert all(re.search(rf"\$\({it}\)", (ROOT / "Makefile").read_text()) for it in variables), line
            for file in re.findall(r"CONSTRAINTS=(\S+)", make[2]):
                assert (ROOT / file).exists(), line
            extras = re.findall(r"[a-z0-9]+", (re.search(r"EXTRAS=([a-z0-9,]+)", make[2]) or ["", ""])[1])
            assert set(extras) <= OPTIONAL.keys(), line
        elif found := re.match(r"\S*bin/mtorl (\w+)", line):
            assert found[1] in COMMANDS
        elif line.startswith("."):
            assert (ROOT / line).exists()
        else:
            assert re.match(r"\S*python -m (pip|venv) ", line), f"{line}: not known here"
        for extra in job.get("strategy", {}).get("matrix", {}).get("extra", []):
            assert extra in OPTIONAL


def test_workflows_cover_the_versions_that_are_supported() -> None:
    jobs = {name: job for it in WORKFLOWS for name, job in yaml.safe_load(it.read_text())["jobs"].items()}
    assert {"tests", "lowest", "docs", "wheel", "newest"} <= jobs.keys()
    least, below = re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"])
    wanted = [f"3.{minor}" for minor in range(int(least), int(below))]
    assert jobs["tests"]["strategy"]["matrix"]["python"] == wanted


def test_the_citation_is_of_this_version() -> None:
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= found.keys(), "fields that the format demands"
    assert (found["version"], found["license"]) == (mtorl.__version__, PROJECT["project"]["license"])
    assert found["keywords"] == PROJECT["project"]["keywords"]


def test_hooks_before_commits_are_those_of_lint() -> None:
    lint = re.findall(r"\$\(BIN\)/(.+)", re.search(r"\nlint: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text())[1])
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {hook["entry"].split()[0].rpartition("/")[2] for hook in local["hooks"]} == {it.split()[0] for it in lint}


def test_the_floor_of_coverage_never_falls() -> None:
    log = ["git", "log", "-p", "--first-parent", "--unified=0", "--format=", "-Gfail_under", "--", "pyproject.toml"]
    result = subprocess.run(log, cwd=ROOT, capture_output=True, text=True)
    if result.returncode or not result.stdout:
        pytest.skip("no history here")
    earlier = [int(it) for it in re.findall(r"^\+fail_under = (\d+)", result.stdout, re.MULTILINE)]
    assert earlier and PROJECT["tool"]["coverage"]["report"]["fail_under"] >= max(earlier)


def test_texts_name_what_there_is() -> None:
    for name in ("CONTRIBUTING.md", "SECURITY.md"):
        text = (ROOT / name).read_text()
        for path in re.findall(r"`((?:tests|benchmarks)/[\w./]*|[\w.-]+\.(?:toml|cff))`", text):
            assert (ROOT / path).exists(), (name, path)
        for target in re.findall(r"\bmake ([a-z]+)", text):
            assert f"\n{target}:" in (ROOT / "Makefile").read_text(), (name, target)
