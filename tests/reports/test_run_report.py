import base64
import errno
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import TASKS, options_of

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.envs.references import evaluate_reference
from mtorl.files import DamageWarning
from mtorl.reports.charts.training import conflict_records, mean_cosines
from mtorl.reports.entries import entries_of
from mtorl.reports.run_report import report
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.logs import read_log

NAMES = ("wide", "small<b>")


@pytest.fixture(scope="module")
def played(store: EpisodeStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs that were evaluated, and references."""
    folder = tmp_path_factory.mktemp("played")
    for name, hidden in zip(NAMES, ([32], [4]), strict=True):
        run = train(**{**options_of(store, folder / name), "agent.hidden": hidden})
        run.evaluate(Protocol(goals=4), workers=0, quiet=True)
    for policy in ("expert", "random"):
        evaluate_reference(policy, run.suite(), Protocol(goals=4), folder / "references", workers=0, quiet=True)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def runs(played: Path, tmp_path: Path) -> list[Run]:
    """Copies of these, for a test to spoil."""
    shutil.copytree(played, tmp_path, dirs_exist_ok=True)
    return [Run(tmp_path / name) for name in NAMES]


class Page(HTMLParser):
    """Collects what a page shows and where it points."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.links, self.open = "", [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.links += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data + " "


def test_one_page_that_needs_no_network(runs: list[Run], tmp_path: Path) -> None:
    path = report([run.folder for run in runs])
    assert path == tmp_path / "report.html"
    page = Page(path.read_text())
    assert not page.open
    assert len(page.links) == 2 + len(runs) and all(
        link.startswith("data:image/svg+xml;base64,") for link in page.links
    )
    for link in page.links:
        assert b"<svg" in base64.b64decode(link.split(",")[1])
    for words in (
        "wide",
        "small<b>",
        "expert",
        "random",
        "towards-2",
        "held-out goals",
        "Conflicts between",
        "mtorl evaluate",
        "torch",
    ):
        assert words in page.words, words
    assert f"mtorl collect --suite PointReach --suite.tasks '{json.dumps(TASKS)}'" in page.words
    assert "Conflicts between tasks" in page.words
    assert "--recipe mixed --episodes 12 --after_success 10" in page.words
    rate = runs[0].evaluate(Protocol(goals=4), workers=0, quiet=True).mean_success
    assert f"{100 * rate:.1f} %" in page.words


def test_conflicts_of_batches_of_some_tasks(train_options: dict, tmp_path: Path) -> None:
    options = {**train_options, "out": str(tmp_path / "part"), "tasks_per_batch": 2, "balancer": "PCGrad"}
    options["schedule"] = {"steps": 30, "monitor_every": 3, "evaluate_every": 0}
    run = train(**options)
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)
    assert len(Page(report([run.folder]).read_text()).links) == 3
    (entry,) = entries_of([run], run.reports())
    matrix = mean_cosines(entry, conflict_records(entry))
    assert matrix.shape == (3, 3) and (abs(matrix.diagonal() - 1) < 1e-3).all() and (abs(matrix) <= 1).all()


def test_a_run_without_monitor_has_no_such_section(train_options: dict) -> None:
    run = train(**{**train_options, "schedule": {"steps": 5, "monitor_every": 0, "evaluate_every": 0}})
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)
    assert "Conflicts between" not in report([run.folder]).read_text()


def test_the_numbers_as_json(runs: list[Run]) -> None:
    path = report([run.folder for run in runs])
    content = json.loads(path.with_suffix(".json").read_text())
    reports = [run.evaluate(Protocol(goals=4), workers=0, quiet=True) for run in runs]
    assert content["mean_success"] == reports[0].mean_success
    assert [run["mean_success"] for run in content["runs"]] == [report.mean_success for report in reports]
    assert [run["name"] for run in content["references"]] == ["expert", "random"]
    task = content["runs"][0]["tasks"][0]
    assert task.keys() >= {"task", "rate", "low", "high", "episodes"} and task["episodes"] == 4


def test_only_references_that_were_played_alike_are_shown(runs: list[Run], tmp_path: Path) -> None:
    folder = tmp_path / "other"
    evaluate_reference("random", runs[0].suite(), Protocol(goals=3), folder, workers=0, quiet=True)
    evaluate_reference("expert", PointReach(TASKS, horizon=30), Protocol(goals=4), folder, workers=0, quiet=True)
    evaluate_reference("expert", PointReach(TASKS[:1]), Protocol(goals=4), folder, workers=0, quiet=True)
    (folder / "notes.json").write_text("{}")
    assert len(list(folder.iterdir())) == 4
    path = report([runs[0].folder], references=folder)
    assert json.loads(path.with_suffix(".json").read_text())["references"] == []
    evaluate_reference("expert", PointReach(), Protocol(goals=4), folder, workers=0, quiet=True)
    path = report([runs[0].folder], references=folder)
    (found,) = json.loads(path.with_suffix(".json").read_text())["references"]
    assert [row["task"] for row in found["tasks"]] == TASKS, "a suite with more tasks serves too"


def test_a_single_run_has_its_report_in_its_folder_and_needs_no_references(runs: list[Run], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    path = report([runs[0].folder], references=tmp_path / "none")
    assert path == runs[0].folder / "report.html"
    assert json.loads(path.with_suffix(".json").read_text())["references"] == []


def test_a_folder_of_references_that_is_not_there_is_named(runs: list[Run], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder .*typo"):
        report([runs[0].folder], references=tmp_path / "typo")


def test_a_run_in_the_current_folder_has_its_name(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs[0].folder)
    assert runs[0].folder.name in Page(report(["."]).read_text()).words


def test_the_same_report_twice_is_the_same_page(runs: list[Run]) -> None:
    first = report([runs[0].folder]).read_text()
    assert report([runs[0].folder]).read_text() == first


def test_runs_that_cannot_be_compared_are_refused(runs: list[Run], train_options: dict, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no official evaluation .*mtorl evaluate .* --protocol official"):
        report([runs[0].folder], protocol="official")
    with pytest.raises(InputError, match=r"expected a name that ends in \.html"):
        report([runs[0].folder], out=tmp_path / "x.json")
    hidden = runs[1].report_path(Protocol(goals=4), goal_visible=False)
    runs[1].evaluate(Protocol(goals=4), goal_visible=False, workers=0, quiet=True)
    shown = runs[1].report_path(Protocol(goals=4))
    kept = shown.read_bytes()
    hidden.replace(shown)
    with pytest.raises(InputError, match=r"no evaluation with the same settings.*4 goals, goal hidden"):
        report([run.folder for run in runs])
    shown.write_bytes(kept.replace(b'"point_reach": "1"', b'"point_reach": "0"'))
    with pytest.raises(InputError, match="cannot be compared: versions of their"):
        report([run.folder for run in runs])
    with pytest.raises(InputError, match="no run was given"):
        report([])


def test_the_evaluation_with_most_goals_that_all_runs_have_is_shown(runs: list[Run]) -> None:
    folders = [run.folder for run in runs]

    def goals(**options: int) -> list[int]:
        content = json.loads(report(folders, **options).with_suffix(".json").read_text())
        return [run["protocol"]["goals"] for run in content["runs"]]

    for run, count in ((runs[0], 2), (runs[1], 2), (runs[0], 6)):
        run.evaluate(Protocol(goals=count), workers=0, quiet=True)
    assert goals() == [4, 4], "a quick look at fewer goals overwrites nothing"
    assert goals(goals=2) == [2, 2]
    with pytest.raises(InputError, match=r"small<b>: .*Evaluate all in the same way"):
        goals(goals=6)


def test_hidden_goals_and_other_protocols_have_reports_of_their_own(runs: list[Run]) -> None:
    run = runs[0]
    run.evaluate(Protocol(goals=4), goal_visible=False, workers=0, quiet=True)
    run.evaluate(Protocol("official", goals=4), checkpoint="best", workers=0, quiet=True)
    assert "goal was hidden" not in report(run.folder).read_text()
    assert "goal was hidden" in report(run.folder, goal_visible=False).read_text()
    path = report(run.folder, protocol="official", checkpoint="best")
    assert path.name == "report-official-best.html" and "training goals per task" in path.read_text()


def test_an_evaluation_of_an_earlier_checkpoint_is_refused(runs: list[Run]) -> None:
    run = runs[0]
    state = run.checkpoints().load()
    run.checkpoints().save(state["step"] + 1, {**state, "step": state["step"] + 1})
    with pytest.raises(InputError, match=r"are of step 30; its checkpoint last has changed.*mtorl evaluate .* again"):
        report([run.folder])
    run.evaluate(Protocol(goals=4), workers=0, quiet=True)
    assert "step 31" in report([run.folder]).read_text()


def test_runs_of_different_data_show_both(
    runs: list[Run], train_options: dict, suite: PointReach, tmp_path: Path
) -> None:
    other = collect(suite, tmp_path / "other", "random", episodes=3, workers=0, quiet=True)
    run = train(**{**train_options, "out": str(tmp_path / "poor"), "data": str(other.path)})
    run.evaluate(Protocol(goals=4), workers=0, quiet=True)
    words = Page(report([runs[0].folder, run.folder]).read_text()).words
    assert "training data of wide" in words and "training data of poor" in words


@pytest.mark.parametrize(
    "line",
    [
        b"{broken",
        b"\x00\xff\x80",
        b"[]",
        b'{"kind": "training", "step": 3}',
        b'{"kind": "training", "step": "x", "loss": 1.0, "steps_per_second": 1.0}',
        b'{"kind": "training", "step": 3, "loss": NaN, "steps_per_second": 1.0}',
        b'{"kind": "conflicts", "step": 3, "phase": "policy", "tasks": ["a"], "negative_pairs": 0, "norm": {}}',
    ],
)
def test_a_damaged_line_of_the_log_is_named_and_the_rest_is_shown(
    runs: list[Run], line: bytes, capsys: pytest.CaptureFixture
) -> None:
    path, whole = runs[0].folder / "log.jsonl", read_log(runs[0].folder)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], line, *lines[2:], b'{"kind": "tr']))  # the last one: cut off by a crash
    assert main(["report", str(runs[0].folder)]) == 1
    assert f"{path}: line 3 cannot be read as an entry of the log" in capsys.readouterr().err
    with pytest.warns(DamageWarning):
        assert read_log(runs[0].folder) == whole
    assert "drawer" not in (page := (runs[0].folder / "report.html").read_text()) and "towards-0" in page


def test_a_log_that_is_none_is_named(runs: list[Run], capsys: pytest.CaptureFixture) -> None:
    path = runs[0].folder / "log.jsonl"
    path.write_bytes(bytes(range(256)) * 40)
    assert main(["report", str(runs[0].folder)]) == 1
    assert f"{path}: line 1 and " in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"{}", b'{"schema": 1, "policy": "another program\'s"}', b"[1]"])
def test_a_damaged_evaluation_is_named_and_the_rest_is_shown(
    runs: list[Run], content: bytes, capsys: pytest.CaptureFixture
) -> None:
    folder = runs[0].folder / "evaluations"
    (folder / "heldout-last-9.json").write_bytes(content)
    assert main(["report", str(runs[0].folder)]) == 1
    assert "heldout-last-9.json" in (told := capsys.readouterr().err) and "It is left out." in told
    (folder / "heldout-last-4.json").unlink()
    assert main(["report", str(runs[0].folder)]) == 2, "nothing is left"
    assert "has no heldout evaluation" in capsys.readouterr().err


def test_an_evaluation_of_a_reference_among_those_of_a_run(runs: list[Run]) -> None:
    """It says of no checkpoint that it is of one."""
    other = next((runs[0].folder.parent / "references").glob("expert-*.json"))
    (runs[0].folder / "evaluations" / "heldout-last-8.json").write_bytes(other.read_bytes())
    with pytest.warns(DamageWarning, match="its source is malformed: it lacks"):
        assert len(runs[0].reports()) == 1


def test_a_full_disk(runs: list[Run], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(["report", str(runs[0].folder)]) == 2
    told = capsys.readouterr().err
    assert "could not write" in told and "Free some space" in told
    assert not (runs[0].folder / "report.html").exists()


def _spoil(run: Run, what: str) -> str:
    """Damages a file of a run; returns what the message must name."""
    if what == "run.json":
        (run.folder / what).write_text("[1")
        return f"{run.folder / what}"
    if what == "a reference":
        path = run.folder.parent / "references" / "expert-damaged.json"
        path.write_text("{")
        return str(path)
    log = run.folder / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"towards-0", b"another"))
    return f"{log}: conflicts are those of other tasks, another."


@pytest.mark.parametrize("what", ["run.json", "a reference", "a log of other tasks"])
def test_what_else_cannot_be_read_is_named_and_the_rest_is_shown(
    what: str, runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    named = _spoil(runs[0], what)
    assert main(["report", *[str(run.folder) for run in runs]]) == 1
    assert named in (told := capsys.readouterr().err) and told.count("It is left out.") == 1
    page = Page((tmp_path / "report.html").read_text())
    assert "small<b>" in page.words and "Conflicts between" in page.words and not page.open


@pytest.mark.parametrize("backend", ["nonsense", "module://nowhere", "TkAgg"])
def test_a_backend_that_cannot_be_loaded_is_not_needed(backend: str, runs: list[Run]) -> None:
    command = [sys.executable, "-m", "mtorl", "report", str(runs[0].folder)]
    result = subprocess.run(command, env={**os.environ, "MPLBACKEND": backend}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
