import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import TASKS

from mtorl import InputError
from mtorl.commands.base import objects, parser_of
from mtorl.commands.main import main
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.envs.references import References, evaluate_reference
from mtorl.envs.results import EvalReport, Played
from mtorl.reports.comparison import compare
from mtorl.reports.tables import show_comparison
from mtorl.runs import sweep
from mtorl.runs.plan import compared_rows, plan
from mtorl.runs.run import Run
from mtorl.trainers.balancers import Equal
from mtorl.trainers.update import MultiTaskUpdate

VARY = {"balancer": ["Equal", "PCGrad"], "seed": [0, 1]}


def ablate(base: str, vary: dict, out: str, **options: Any) -> Path:
    """The page that the command of that name makes."""
    return compare(sweep.ablate(base, vary, out, **options))


@pytest.fixture
def base(train_options: dict, tmp_path: Path) -> str:
    options = {key: value for key, value in train_options.items() if key not in ("out", "agent.hidden")}
    options["data"] = [options["data"]]
    options["agent"] = {"class_path": "BehaviorCloning", "init_args": {"hidden": [8]}}
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(options))
    return str(path)


def test_plan() -> None:
    cells = plan(
        {
            "balancer": [
                "Equal",
                {"class_path": "mtorl.trainers.balancers.CAGrad", "init_args": {"c": 0.4}},
                {"label": "BayesAgg", "options": {"balancer": "BayesAgg", "agent.output_heads": "linear"}},
            ],
            "optimizer.lr": [0.1, 0.01],
            "seed": [3],
        },
        Path("o"),
    )
    assert [cell.variant for cell in cells[::2]] == ["Equal, lr=0.1", "CAGrad(c=0.4), lr=0.1", "BayesAgg, lr=0.1"]
    assert cells[-1].options == {
        "balancer": "BayesAgg",
        "agent.output_heads": "linear",
        "optimizer.lr": 0.01,
        "seed": 3,
    }
    assert cells[2].folder == Path("o/CAGrad_c=0.4___lr=0.1-seed3")


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({}, "vary is empty"),
        ({"seed": 1}, "seed has 1; expected a list"),
        ({"seed": []}, "at least one value"),
        ({1: [2]}, "vary has 1; expected names of options"),
        ({"seed": [{"label": "a", "options": 3}]}, "vary: seed has options 3; expected names, each with a value"),
        ({"seed": [{"label": "a", "options": [3]}]}, r"seed has options \[3\]; expected names"),
        ({"seed": [{"label": "a", "options": {1: 2}}]}, r"seed has options \{1: 2\}; expected names"),
        ({"agent": [{"class_path": "IQL", "init_args": 3}]}, "agent has init_args 3; expected names"),
        ({"config": [["a.yaml"]]}, r"config has \['a.yaml'\]; expected names of files"),
        ({"balancer": ["Equal", "mtorl.trainers.balancers.Equal"]}, "would live in o/Equal"),
    ],
)
def test_impossible_plans_are_refused(vary: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan(vary, Path("o"))


def test_an_ablation_compares_methods(base: str, tmp_path: Path) -> None:
    path = ablate(base, VARY, str(tmp_path / "out"), goals=4, workers=0, quiet=True)
    content = json.loads(path.with_suffix(".json").read_text())
    assert content["baselines"] == ["Equal"]
    equal, other = content["methods"]
    assert (equal["name"], other["name"], other["seeds"]) == ("Equal", "PCGrad", 2)
    assert equal["probability_of_improvement"] == {"Equal": None} and equal["step_over_baseline"] == 1
    found, low, high = other["probability_of_improvement"]["Equal"]
    assert 0 <= low <= found <= high <= 1
    reports = [Run(folder).reports()[0] for folder in other["runs"]]
    scores = np.array([[row.rate for row in report.tasks()] for report in reports])
    assert other["scores"] == scores.tolist() and other["mean"][0] == pytest.approx(scores.mean())
    successes = sum(report.tasks()[0].successes for report in reports)
    assert other["tasks"]["towards-0"][0] == pytest.approx(successes / 8)
    page = path.read_text()
    assert "PCGrad" in page and "http://" not in page and "https://" not in page


def test_finished_runs_are_kept_and_interrupted_ones_continue(base: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = ablate(base, VARY, str(out), goals=2, workers=0, quiet=True).read_text()
    kept = out / "Equal-seed0" / "checkpoints" / "step_000000030.pt"
    before = kept.stat().st_mtime_ns
    (out / "PCGrad-seed1" / "checkpoints" / "step_000000030.pt").unlink()  # as if it had been killed
    (out / "PCGrad-seed1" / "evaluations" / "heldout-last-stopped-2.json").unlink()
    again = ablate(base, VARY, str(out), goals=2, workers=2, quiet=True)
    assert kept.stat().st_mtime_ns == before
    scores = json.loads(again.with_suffix(".json").read_text())
    assert Run(out / "PCGrad-seed1").checkpoints().steps()[-1] == 30 and len(scores["methods"]) == 2
    assert first.count("<tr") == again.read_text().count("<tr")
    more = ablate(base, {**VARY, "seed": [0, 1, 2]}, str(out), goals=2, workers=0, quiet=True)
    assert json.loads(more.with_suffix(".json").read_text())["methods"][0]["seeds"] == 3


def test_a_changed_base_is_refused(base: str, tmp_path: Path) -> None:
    ablate(base, {"seed": [0]}, str(tmp_path / "out"), goals=1, workers=0, quiet=True)
    Path(base).write_text(Path(base).read_text().replace("- 8", "- 9"))
    with pytest.raises(InputError, match=r"1 of 1 runs failed.*hidden: \[8\]"):
        ablate(base, {"seed": [0]}, str(tmp_path / "out"), goals=1, workers=0, quiet=True)


def test_two_settings_do_not_set_the_same_option() -> None:
    one, other = ({"label": name, "options": {"windows": size}} for name, size in (("a", 1), ("b", 2)))
    with pytest.raises(InputError, match=r"\['windows'\] is set by two settings"):
        plan({"balancer": [one], "sharing": [other]}, Path("o"))
    files = [{"label": name, "options": {"config": f"{name}.yaml"}} for name in "ab"]
    (cell,) = plan({"balancer": files[:1], "sharing": files[1:]}, Path("o"))
    assert cell.options == {"config": ["a.yaml", "b.yaml"]}
    assert [it.variant for it in plan({"config": ["x/one.yaml", "two.yaml"]}, Path("o"))] == ["one", "two"]


def test_returns_of_several_suites_are_notcompared_rows(base: str, tmp_path: Path) -> None:
    other = collect(PointReach(TASKS, horizon=15), tmp_path / "short", "mixed", episodes=3, workers=0, quiet=True)
    first = yaml.safe_load(Path(base).read_text())["data"]
    vary = {"data": [{"label": "a", "options": {"data": first}}, str(other.path)]}
    with pytest.raises(InputError, match="the runs are of several suites"):
        ablate(base, vary, str(tmp_path / "out"), goals=1, stop_at_success=False, workers=0, quiet=True)
    assert not (tmp_path / "out").exists()


def test_values_from_other_files(base: str, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"agent": {"class_path": "SoftModular", "init_args": {"width": 8}}, "windows": 4}))
    files = {"label": "as in the file", "options": {"config": str(other)}}
    vary = {"agent": [{"label": "plain", "options": {}}, files], "schedule.steps": [7]}
    ablate(base, vary, str(tmp_path / "out"), goals=1, workers=0, quiet=True)
    plain, found = (
        Run(tmp_path / "out" / f"{name}__steps=7").configuration.options for name in ("plain", "as_in_the_file")
    )
    assert found.agent.class_path.endswith("SoftModular") and plain.agent.class_path.endswith("BehaviorCloning")
    assert (found.windows, plain.windows) == (4, 8) and found.schedule.steps == plain.schedule.steps == 7
    ablate(base, vary, str(tmp_path / "out"), goals=2, workers=0, quiet=True)  # resumed


def test_other_runs_finish_when_one_fails(base: str, tmp_path: Path) -> None:
    vary = {"balancer": ["Nonsense", "Equal"], "seed": [0, 1]}
    with pytest.raises(InputError, match=r"2 of 4 runs failed; the others are finished.*Nonsense") as failure:
        ablate(base, vary, str(tmp_path / "out"), goals=1, workers=0, quiet=True)
    assert str(failure.value).count("unknown class") == 1, "each reason once"
    assert Run(tmp_path / "out" / "Equal-seed0").reports()


def test_wrong_settings_are_refused(base: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="baselines has 'Best'; expected one of 'Equal', 'PCGrad'"):
        ablate(base, VARY, str(tmp_path / "out"), baselines=["Best"])
    with pytest.raises(InputError, match=r"no configuration no\.yaml"):
        ablate("no.yaml", VARY, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_the_command(base: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = tmp_path / "ablation.yaml"
    config.write_text(yaml.safe_dump({"base": base, "vary": {"seed": [0], "balancer": ["Equal"]}, "goals": 1}))
    options = ["--out", str(tmp_path / "out"), "--workers", "0", "--quiet", "true"]
    assert main(["ablate", "--config", str(config), *options]) == 0
    assert "compared to Equal" in capsys.readouterr().out


def test_single_task_models_and_errors_of_actions(base: str, suite: PointReach, tmp_path: Path) -> None:
    heldout = collect(suite, tmp_path / "heldout", "expert", episodes=3, split="heldout", workers=0, quiet=True)
    path = ablate(
        base,
        {"balancer": ["Equal", "PCGrad"], "seed": [0, 1]},
        str(tmp_path / "out"),
        goals=4,
        heldout_data=str(heldout.path),
        single_tasks=True,
        workers=0,
        quiet=True,
    )
    content = json.loads(path.with_suffix(".json").read_text())
    equal, _, single = content["methods"]
    assert [single["name"]] == content["single_task_models"] == ["single-task models"] and len(single["runs"]) == 6
    assert (equal["steps"], single["steps"]) == (30, 90) and single["delta_m"] == {}
    assert Run(tmp_path / "out" / "single-towards_2-seed1").spec.task_names == ("towards-2",)
    for number, task in enumerate(content["tasks"]):
        run = Run(tmp_path / "out" / f"single-{task.replace('-', '_')}-seed1")
        assert single["scores"][1][number] == run.reports()[0].mean_success
        assert single["action_errors"][1][number] == run.action_errors(heldout.path).mean_error
    ours, theirs = np.mean(equal["action_errors"], 0), np.mean(single["action_errors"], 0)
    value, low, high = equal["action_error_delta_m"]["single-task models"]
    assert value == pytest.approx(np.mean((theirs - ours) / theirs))
    assert low <= value <= high
    page = path.read_text()
    assert "Error of actions per task" in page and "&Delta;m" in page
    show_comparison(path.with_suffix(".json"))


def test_heldout_data_of_other_tasks_is_refused_at_once(base: str, tmp_path: Path) -> None:
    other = collect(PointReach(["away-1"]), tmp_path / "other", "expert", episodes=1, workers=0, quiet=True)
    with pytest.raises(InputError, match=r"has no episodes of \['towards-0', 'towards-2', 'away-0'\]"):
        ablate(base, VARY, str(tmp_path / "out"), heldout_data=str(other.path), workers=0, quiet=True)
    assert not (tmp_path / "out").exists()


def test_masks_are_compared_with_two_controls(base: str, tmp_path: Path) -> None:
    harmony = {"class_path": "HarmonyMasks", "init_args": {"interval": 5, "swap_fraction": 0.5}}
    path = ablate(
        base,
        {"sharing": ["Shared", "RandomMasks", harmony], "seed": [0, 1]},
        str(tmp_path / "out"),
        goals=2,
        baselines=["Shared", "RandomMasks"],
        workers=0,
        quiet=True,
    )
    content = json.loads(path.with_suffix(".json").read_text())
    assert content["baselines"] == ["Shared", "RandomMasks"]
    chances = [row["probability_of_improvement"] for row in content["methods"]]
    assert [[bool(it[name]) for name in ("Shared", "RandomMasks")] for it in chances] == [[0, 1], [1, 0], [1, 1]]
    assert [bool(row["masks_changed"]) for row in content["methods"]] == [False, False, True]
    page = path.read_text()
    assert "<h2>Masks</h2>" in page and "How far masks are from where they began" in page
    assert page.count("<h3>") == 2
    show_comparison(path.with_suffix(".json"))


def test_an_evaluation_of_another_kind_is_not_taken(base: str, tmp_path: Path) -> None:
    """With as many goals, but hidden ones."""
    vary, out = {"seed": [0]}, tmp_path / "out"
    path = ablate(base, vary, str(out), goals=2, workers=0, quiet=True)
    expected = json.loads(path.with_suffix(".json").read_text())["methods"][0]["scores"]
    run = Run(out / "base-seed0")
    hidden = run.evaluate(Protocol("heldout", 2, stop_at_success=True), goal_visible=False, workers=0, quiet=True)
    (run.folder / "evaluations" / "heldout-a-first.json").write_text(
        run.report_path(hidden.protocol, goal_visible=False).read_text()
    )
    path = ablate(base, vary, str(out), goals=2, workers=0, quiet=True)
    assert json.loads(path.with_suffix(".json").read_text())["methods"][0]["scores"] == expected
    report = run.report_path(hidden.protocol)
    assert json.loads(report.read_text())["suite"] != hidden.suite


class Faulty(Equal):
    """Somebody's first balancer."""

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        raise TypeError("a mistake")


def test_a_mistake_in_a_class_of_the_users_does_not_stop_the_others(base: str, tmp_path: Path) -> None:
    vary = {"balancer": [f"{__name__}.Faulty", "Equal"]}
    with pytest.raises(InputError, match=r"1 of 2 runs failed; the others are finished.*TypeError: a mistake"):
        ablate(base, vary, str(tmp_path / "out"), goals=1, workers=0, quiet=True)
    assert Run(tmp_path / "out" / "Equal").reports()


def test_baselines_are_rows_or_values_of_a_setting() -> None:
    cells = plan({"balancer": ["Equal", "PCGrad"], "optimizer.lr": [0.1, 0.2], "seed": [0]}, Path("o"))
    assert compared_rows(cells, ["Equal", "PCGrad, lr=0.2"]) == {
        "Equal": {
            "Equal, lr=0.1": "Equal, lr=0.1",
            "Equal, lr=0.2": "Equal, lr=0.2",
            "PCGrad, lr=0.1": "Equal, lr=0.1",
            "PCGrad, lr=0.2": "Equal, lr=0.2",
        },
        "PCGrad, lr=0.2": dict.fromkeys([cell.variant for cell in cells], "PCGrad, lr=0.2"),
    }
    with pytest.raises(
        InputError, match=r"baselines has 'Best'; expected one of .*'PCGrad, lr=0\.2', 'Equal', 'lr=0\.1'"
    ):
        compared_rows(cells, ["Best"])
    double = plan({"balancer": ["Equal", "PCGrad"], "sharing": [{"label": "Equal", "options": {}}]}, Path("o"))
    with pytest.raises(InputError, match="'Equal', which several settings have"):
        compared_rows(double, ["Equal"])


def test_every_row_is_compared_to_its_counterpart(base: str, tmp_path: Path) -> None:
    vary = {"balancer": ["Equal", "PCGrad"], "windows": [4, 8], "seed": [0, 1]}
    more = {"goals": 3, "stop_at_success": False, "single_tasks": True, "workers": 0, "quiet": True}
    path = ablate(base, vary, str(tmp_path / "out"), baselines=["PCGrad"], **more)  # type: ignore[arg-type]
    rows = {row["name"]: row for row in json.loads(path.with_suffix(".json").read_text())["methods"]}
    scores = {name: np.array(row["normalised_scores"]).mean() for name, row in rows.items()}
    assert len(set(scores.values())) == 5
    for size in ("windows=4", "windows=8"):
        lead = rows[f"Equal, {size}"]["normalised_score_lead"]["PCGrad"]
        assert lead[0] == pytest.approx(scores[f"Equal, {size}"] - scores[f"PCGrad, {size}"])
        assert rows[f"PCGrad, {size}"]["normalised_score_lead"] == {"PCGrad": None}
    assert rows["single-task models"]["normalised_score_lead"] == {"PCGrad": None}
    assert "each to the one that differs from it in that setting only" in path.read_text()


def test_scores_are_normalised_by_the_expert_and_random_actions(base: str, tmp_path: Path) -> None:
    options = {"goals": 4, "stop_at_success": False, "workers": 0, "quiet": True}
    path = ablate(base, VARY, str(tmp_path / "out"), **options)
    found = json.loads(path.with_suffix(".json").read_text())["methods"]
    suite = Run(tmp_path / "out" / "Equal-seed0").suite()
    ends = [
        [row.mean_return for row in evaluate_reference(kind, suite, Protocol(goals=4), tmp_path, 0, True).tasks()]
        for kind in ("random", "expert")
    ]
    low, high = np.array(ends)
    for method in found:
        played = [[row.mean_return for row in Run(it).reports()[0].tasks()] for it in method["runs"]]
        scores = (np.array(played) - low) / (high - low)
        assert np.allclose(method["normalised_scores"], scores)
        assert method["normalised_score"][0] == pytest.approx(scores.mean())
    equal, other = found
    assert equal["normalised_score_lead"] == {"Equal": None}
    lead, under, over = other["normalised_score_lead"]["Equal"]
    assert lead == pytest.approx(other["normalised_score"][0] - equal["normalised_score"][0]) and under <= lead <= over
    kept = {it: it.stat().st_mtime_ns for it in (tmp_path / "out" / "references").iterdir()}
    assert len(kept) == 2 and "Return-normalised score per task" in path.read_text()
    show_comparison(path.with_suffix(".json"))
    ablate(base, VARY, str(tmp_path / "out"), **options)
    assert kept == {it: it.stat().st_mtime_ns for it in (tmp_path / "out" / "references").iterdir()}


def test_tasks_in_which_the_expert_earns_nothing_have_no_score() -> None:
    def report(*rewards: float) -> EvalReport:
        played = tuple(Played(f"t{task}", 0, True, True, reward, 5) for task, reward in enumerate(rewards))
        return EvalReport("p", ("t0", "t1", "t2"), played, Protocol(goals=1), {}, {})

    references = References(report(11.0, 3.0, 2.0), report(1.0, 3.0, 4.0))
    assert references.scores(report(6.0, 9.0, 9.0)) == {"t0": 0.5}


def test_several_kinds_of_single_task_models(base: str, tmp_path: Path) -> None:
    """Those of the own statistics, and those of all tasks: each has its row, and the gain over it."""
    kinds: dict = {"own": {}, "statistics of all": {"statistics": "data", "optimizer.lr": 0.01}}
    vary = {"balancer": ["Equal", "SelectiveTaskGroups"], "seed": [0, 1]}
    options = yaml.safe_load(Path(base).read_text())
    options |= {"optimizer": {"lr": 0.03, "warmup": 0}, "schedule": {**options["schedule"], "steps": 100}}
    Path(base).write_text(yaml.safe_dump(options))
    path = ablate(base, vary, str(tmp_path / "out"), goals=4, single_tasks=kinds, workers=0, quiet=True)
    content = json.loads(path.with_suffix(".json").read_text())
    assert content["single_task_models"] == list(kinds)
    rows = {row["name"]: row for row in content["methods"]}
    assert list(rows) == ["Equal", "SelectiveTaskGroups", *kinds]
    own, ours = (Run(tmp_path / "out" / f"{name}-towards_2-seed1") for name in ("own", "statistics_of_all"))
    everything = Run(tmp_path / "out" / "Equal-seed1").spec
    assert own.spec.observation_mean == everything.observation_mean[1:2] != ours.spec.observation_mean
    mean = np.average(everything.observation_mean, axis=0, weights=everything.steps)
    np.testing.assert_allclose(ours.spec.observation_mean[0], mean)
    assert ours.configuration.options.optimizer.lr == 0.01
    for name in kinds:
        theirs, mine = np.mean(rows[name]["scores"], 0), np.mean(rows["Equal"]["scores"], 0)
        assert rows[name]["delta_m"] == {}, "models of single tasks are not compared to each other"
        for key, usable in (("delta_m", theirs > 0), ("delta_m_of_solved", theirs >= 0.05)):
            if (found := rows["Equal"][key][name]) is not None:
                assert found[0] == pytest.approx(np.mean(mine[usable] / theirs[usable] - 1))
    assert rows["Equal"]["moves_per_step"] == 1 and rows["SelectiveTaskGroups"]["moves_per_step"] == 3
    assert rows["Equal"]["weights_max_over_min"] == 1 and rows["SelectiveTaskGroups"]["weights_max_over_min"] is None
    page = path.read_text()
    assert page.count("&Delta;m over") == 2 and "analysis of variance" in page
    show_comparison(path.with_suffix(".json"))


def test_values_in_quotes_are_texts(base: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "1e5").write_text("windows: 3\n")
    (tmp_path / "ablation.yaml").write_text(f"base: {base}\nout: {tmp_path / 'o'}\nvary: {{config: [1e5]}}\n")
    assert main(["ablate", "--config", str(tmp_path / "ablation.yaml")]) == 2
    assert "vary: config has 100000.0; expected names of files. Write them in quotes." in capsys.readouterr().err
    found = objects(
        parser_of("ablate", sweep.ablate), ["--base=b", "--out=o", "--vary", '{config: ["1e5", "007"], seed: [1]}']
    )
    assert found["vary"] == {"config": ["1e5", "007"], "seed": [1]}
