"""What runs and their comparisons write for others to read: every kind of log entry, report.json, comparison.json."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mtorl.datasets.grouping import Grouping
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.protocol import Protocol
from mtorl.envs.references import evaluate_reference
from mtorl.reports.comparison import compare
from mtorl.reports.run_report import report
from mtorl.runs.run import Run
from mtorl.runs.sweep import ablate
from mtorl.runs.training import train
from mtorl.schema import check
from mtorl.trainers.entries import KINDS, LINE
from mtorl.trainers.logs import read_log

SUMMARY = {"name", "mean_success", "low", "high", "protocol", "tasks"}
COSTS = {"models", "parameters", "training_steps", "training_minutes", "groups"}
TASK = {"task", "episodes", "successes", "rate", "low", "high", "success_last_rate", "mean_return", "mean_length"}
REPORT = {"mean_success", "runs", "references"}
COMPARISON = {"baselines", "single_task_models", "analysis_of_variance", "heldout_data", "tasks", "methods"}
METHOD = {
    *("name", "seeds", "episodes", "mean", "interquartile_mean", "probability_of_improvement", "tasks", "scores"),
    *("normalised_score", "normalised_score_lead", "normalised_scores", "delta_m", "delta_m_of_solved"),
    *("action_error", "action_errors", "action_error_delta_m", "milliseconds_per_step", "step_over_baseline"),
    *("steps", "moves_per_step", "weights_max_over_min", "minutes", "parameters", "masks_changed", "runs"),
}


@pytest.fixture(scope="module")
def run(store: EpisodeStore, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Has something to say of everything: modules that route, heads that are related, masks that move, a gate."""
    folder = tmp_path_factory.mktemp("records")
    names = store.task_names
    Grouping(names, (0, 1, 0), ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0)), 1.0, "").save(folder / "g.json")
    small = {"modules": 2, "layers": 2, "width": 8, "base": [8], "gating": [8], "head": "VariationalHeads"}
    masks = {"class_path": "GroupMasks", "init_args": {"grouping": str(folder / "g.json"), "interval": 4}}
    return train(
        data=str(store.path),
        out=str(folder / "run"),
        agent={"class_path": "SoftModular", "init_args": small},
        sharing=masks,
        balancer="PCGrad",
        schedule={"steps": 12, "log_every": 4, "monitor_every": 5, "evaluate_every": 6, "save_every": 6},
        evaluate_goals=1,
        windows=4,
        workers=0,
        threads=1,
        quiet=True,
    )


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]


def test_every_kind_of_entry_is_written(run: Run) -> None:
    written = {entry["kind"] for entry in lines(run)}
    assert {"training", "conflicts", "routing", "sharing", "conclusion"} <= written
    assert written == KINDS.keys(), "what is written is described, and what is described is written"


def test_every_entry_is_as_its_schema_says(run: Run) -> None:
    for entry in lines(run):
        kind = KINDS[entry["kind"]]
        check(entry, LINE, "entry")
        check(entry, kind.schema, "entry")
        assert kind.read(entry).plain() | {"time": entry["time"]} == entry
        assert list(kind.read(entry).plain()) == list(entry)[:-1], "keys stand as they are declared"
        assert list(entry)[:2] == ["kind", "step"] and entry["time"] > 0
        assert all(math.isfinite(number) for number in numbers(entry)), entry
    steps = [entry["step"] for entry in lines(run)]
    assert steps[-1] == 12 and max(steps) == 12
    assert read_log(run.folder) == lines(run), "none is left out"


def test_numbers_of_single_tasks_name_all_tasks(run: Run) -> None:
    names = run.spec.task_names
    for entry in lines(run):
        if entry["kind"] == "training":
            assert {f"policy/loss/{name}" for name in names} <= entry.keys()
        for key in ("success", "norm", "entropy"):
            assert key not in entry or tuple(entry[key]) == names


def numbers(content: Any) -> Iterator[float]:
    """All that a document holds, at whatever depth."""
    if isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from numbers(value)
    elif isinstance(content, int | float):
        yield content


def read(path: Path) -> dict[str, Any]:
    """A JSON file without NaN and infinity, which other readers of JSON refuse."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def test_what_a_report_holds(run: Run, tmp_path: Path) -> None:
    evaluation = run.evaluate(Protocol(goals=2), workers=0, quiet=True)
    for policy in ("expert", "random"):
        evaluate_reference(policy, run.suite(), Protocol(goals=2), tmp_path, workers=0, quiet=True)  # type: ignore[arg-type]
    content = read(report([run.folder], references=tmp_path).with_suffix(".json"))
    assert content.keys() == REPORT
    assert len(content["runs"]) == 1 and [it["name"] for it in content["references"]] == ["expert", "random"]
    assert content["runs"][0].keys() == SUMMARY | COSTS
    for summary in (*content["runs"], *content["references"]):
        assert summary.keys() - COSTS == SUMMARY and summary["protocol"]["goals"] == 2
        assert 0 <= summary["low"] <= summary["mean_success"] <= summary["high"] <= 1
        assert tuple(task["task"] for task in summary["tasks"]) == run.spec.task_names
        for task in summary["tasks"]:
            assert task.keys() == TASK and task["low"] <= task["rate"] <= task["high"] and task["episodes"] == 2
    assert content["mean_success"] == content["runs"][0]["mean_success"] == evaluation.mean_success
    assert all(map(math.isfinite, numbers(content)))


def test_what_a_comparison_holds(train_options: dict, store: EpisodeStore, tmp_path: Path) -> None:
    options = {name: value for name, value in train_options.items() if name not in ("out", "agent.hidden")}
    options |= {
        "data": [str(store.path)],
        "agent": {"class_path": "BehaviorCloning", "init_args": {"hidden": [8]}},
        "schedule": {"steps": 10, "log_every": 5, "evaluate_every": 0, "save_every": 0},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(options))
    vary = {"sharing": ["Shared", "RandomMasks"], "seed": [0, 1]}
    page = compare(ablate(str(tmp_path / "base.yaml"), vary, str(tmp_path / "out"), goals=2, workers=0, quiet=True))
    content = read(page.with_suffix(".json"))
    assert page.name == "comparison.html" and content.keys() == COMPARISON
    assert tuple(content["tasks"]) == store.task_names and content["baselines"] == ["Shared"]
    assert [method["name"] for method in content["methods"]] == ["Shared", "RandomMasks"]
    for method in content["methods"]:
        assert method.keys() == METHOD
        assert (
            method["seeds"] == 2
            and method["episodes"] == 2
            and method["steps"] == 10
            and len(method["runs"]) == 2
            and method["parameters"] > 0
        )
        assert len(method["scores"]) == 2 and all(len(row) == 3 for row in method["scores"])
        for value, low, high in (method["mean"], method["interquartile_mean"], *method["tasks"].values()):
            assert 0 <= low <= value <= high <= 1
    assert all(map(math.isfinite, numbers(content)))
