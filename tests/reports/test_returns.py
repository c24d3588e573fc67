"""Runs on tasks without success, alone and beside others: logs, best checkpoints, pages, tables, comparisons."""

import json
from pathlib import Path

import pytest
import yaml
from mixed import MixedReach

from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.envs.references import evaluate_reference
from mtorl.measures import SCORE, SUCCESS
from mtorl.reports.comparison import compare
from mtorl.reports.evaluation_table import show_report
from mtorl.reports.run_report import report
from mtorl.reports.tables import show_comparison, show_store
from mtorl.runs.run import Run
from mtorl.runs.sweep import ablate
from mtorl.runs.training import train
from mtorl.schema import check
from mtorl.trainers.entries import EvaluationEntry
from mtorl.trainers.logs import Log, read_log

SCHEDULE = {"steps": 20, "log_every": 10, "evaluate_every": 10, "save_every": 10}
TASKS = {"alone": ["away-0", "away-1"], "mixed": ["towards-0", "away-0", "away-3"]}


def options_of(folder: Path, tasks: list[str]) -> dict:
    data = collect(MixedReach(tasks, horizon=12), folder / "data", "mixed", episodes=4, workers=0, quiet=True)
    return {
        "data": [str(data.path)],
        "agent.hidden": [16],
        "schedule": SCHEDULE,
        "evaluate_goals": 2,
        "windows": 8,
        "workers": 0,
        "threads": 1,
        "quiet": True,
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    found = {}
    for name, tasks in TASKS.items():
        folder = tmp_path_factory.mktemp(name)
        found[name] = train(**options_of(folder, tasks), out=str(folder / name))
        found[name].evaluate(Protocol(goals=3), workers=0, quiet=True)
        evaluate_reference("random", found[name].suite(), Protocol(goals=3), folder / "references", 0, quiet=True)
    return found


def test_logs_hold_returns_and_the_best_checkpoint_is_chosen_by_them(runs: dict[str, Run]) -> None:
    run = runs["alone"]
    entries = Log(run.folder).of(EvaluationEntry)
    lines = [line for line in read_log(run.folder) if line["kind"] == EvaluationEntry.kind]
    assert len(lines) == 2
    for line in lines:
        check(line, EvaluationEntry.schema, "entry")
        assert line.keys() == {"kind", "step", "returns", "mean", "time"} and [*line["returns"]] == TASKS["alone"]
    means = {entry.step: entry.judged[SCORE] for entry in entries}
    best = run.checkpoints().load("best")
    assert best["best"] == max(means.values()) and means[best["step"]] == best["best"]
    mixed = Log(runs["mixed"].folder).of(EvaluationEntry)
    assert [*mixed[0].success] == ["towards-0"] and [*mixed[0].returns] == ["away-0", "away-3"]
    assert next(iter(mixed[0].judged)) is SUCCESS and mixed[0].judged[SUCCESS] == mixed[0].mean_success
    assert runs["mixed"].checkpoints().load("best")["best"] == max(entry.mean_success or 0 for entry in mixed)


@pytest.mark.parametrize("name", TASKS)
def test_pages_show_returns_where_success_would_stand(
    runs: dict[str, Run], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[name]
    page = report(run.folder)
    html, content = page.read_text(), json.loads(page.with_suffix(".json").read_text())
    evaluation = run.reports()[0]
    show_report(evaluation)
    printed = capsys.readouterr().out
    for row in evaluation.tasks():
        assert f"<td>{row.measure.text(0, ' ')} <small>" in html and row.measure.interval() in printed
    assert "not comparable to D4RL" in html and "not comparable to D4RL" in " ".join(printed.split())
    (summary,) = content["runs"]
    assert [it["name"] for it in content["references"]] == ["random"]
    if name == "alone":
        assert "<h1>Return per task</h1>" in html and "success at any step" not in printed.lower()
        assert content["mean_success"] is None and [it["name"] for it in summary["means"]] == ["normalised score"]
    else:
        assert "<h1>Success or return per task</h1>" in html and "mean success of 1 tasks" in printed
        assert content["mean_success"] == evaluation.mean_success
        assert [(it["name"], it["tasks"]) for it in summary["means"]] == [("success", 1), ("return", 2)]
    for task in summary["tasks"]:
        assert (task["rate"] is None) == (task["task"] in evaluation.returns_only) == ("return" in task)
        assert ("normalised_score" in task) == (task["task"] in ("away-0", "away-1"))


def test_data_without_success_show_none(runs: dict[str, Run], capsys: pytest.CaptureFixture[str]) -> None:
    from mtorl.datasets.store import EpisodeStore

    store = EpisodeStore(runs["mixed"].spec.data[0]["path"])
    assert store.returns_only == ("away-0", "away-3") == runs["mixed"].spec.returns_only
    show_store(store)
    lines = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "│" in line}
    assert "%" in lines["towards-0"] and "%" not in lines["away-0"] and "%" in lines["3 tasks"]


@pytest.mark.parametrize("name", TASKS)
def test_comparisons_judge_by_returns(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = options_of(tmp_path, TASKS[name]) | {"schedule": {**SCHEDULE, "evaluate_every": 0}}
    del options["agent.hidden"]
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(options))
    vary = {"balancer": ["Equal", "PCGrad"], "seed": [0, 1]}
    page = compare(ablate(str(tmp_path / "base.yaml"), vary, str(tmp_path / "out"), goals=3, workers=0, quiet=True))
    content = json.loads(page.with_suffix(".json").read_text())
    show_comparison(page.with_suffix(".json"))
    printed, html = capsys.readouterr().out, page.read_text()
    first = Run(content["methods"][0]["runs"][0]).reports()[0]
    scores = content["methods"][0]["scores"][0]
    if name == "alone":
        assert content["judged_by"] == "normalised score" and "others_judged_by" not in content
        assert scores == pytest.approx([row.score.value for row in first.tasks() if row.score])
        assert "mean normalised score" in printed and "Normalised score per task" in html
    else:
        assert "judged_by" not in content and content["others_judged_by"] == "return"
        assert scores == pytest.approx([row.measure.value for row in first.tasks()])
        assert "mean return" in printed and "Success or return per task" in html
        means = [sum(row["scores"][0][1:] + row["scores"][1][1:]) / 4 for row in content["methods"]]
        assert [row["mean_of_others"][0] for row in content["methods"]] == pytest.approx(means)
    for row in content["methods"]:
        assert row["mean"][1] <= row["mean"][0] <= row["mean"][2] and row["tasks"].keys() == {*TASKS[name]}
