"""Where tasks quarrel, and what sharing costs them."""

import json
from pathlib import Path

import pytest

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.reports.run_report import report
from mtorl.runs.conflicts import Conflicts, PhaseConflicts, kept_conflicts, measure_conflicts
from mtorl.runs.run import Run
from mtorl.runs.sharing_price import SharingPrice, sharing_price
from mtorl.runs.training import train
from mtorl.trainers.entries import ConflictsEntry
from mtorl.trainers.logs import Log

TASKS = ("towards-0", "towards-2", "away-0")


@pytest.fixture(scope="module")
def heldout(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    path = tmp_path_factory.mktemp("data") / "heldout"
    return collect(PointReach(list(TASKS)), path, "expert", episodes=3, workers=0, quiet=True, split="heldout")


def options_of(options: dict, tmp_path: Path, name: str, **more: object) -> dict:
    schedule = {"steps": 10, "evaluate_every": 0, "save_every": 0}
    return options | {"out": str(tmp_path / name), "statistics": "data", "schedule": schedule} | more


def test_summaries_of_a_matrix() -> None:
    cosines = [[1.0, -0.5, 0.3], [-0.5, 1.0, 0.5], [0.3, 0.5, 1.0]]
    found = PhaseConflicts("policy", ["a", "b", "c"], cosines, 1 / 3, dict.fromkeys("abc", 1.0))
    assert found.pairs() == [(-0.5, "a", "b"), (0.3, "a", "c"), (0.5, "b", "c")]
    assert found.mean_cosine == pytest.approx(0.1) and found.least_cosine == -0.5
    alone = PhaseConflicts("policy", ["a"], [[1.0]], 0.0, {"a": 1.0})
    assert alone.pairs() == [] and alone.mean_cosine == alone.least_cosine == 0


def test_the_price_is_a_ratio() -> None:
    price = SharingPrice("data", {"a": 0.2, "b": 0.1}, {"a": 0.1, "b": 0.8})
    assert price.ratios == {"a": 2.0, "b": 0.125} and price.mean_ratio == pytest.approx(0.5)


def test_gradients_are_those_of_training(train_options: dict, tmp_path: Path) -> None:
    """At parameters that do not move, means over many batches are what the monitor saw."""
    schedule = {"steps": 40, "monitor_every": 1, "evaluate_every": 0, "save_every": 0}
    still = {"optimizer": {"lr": 1e-12}, "schedule": schedule}
    run = train(**options_of(train_options, tmp_path, "run", **still, sharing="RandomMasks"))
    found = measure_conflicts(run, batches=40)
    (phase,) = found.phases
    seen = [entry for entry in Log(run.folder).of(ConflictsEntry) if entry.phase == phase.phase]
    assert len(seen) == 40 and tuple(phase.tasks) == TASKS and found.source.step == 40
    for task in TASKS:
        mean = sum(entry.norm[task] for entry in seen) / 40
        assert phase.norm[task] == pytest.approx(mean, rel=0.15)
    for one in range(3):
        assert phase.cosines[one][one] == pytest.approx(1, abs=1e-3)
        for other in range(3):
            mean = sum(entry.cosines[one][other] for entry in seen) / 40
            assert phase.cosines[one][other] == pytest.approx(mean, abs=0.2)
    assert measure_conflicts(run, batches=40) == found, "the same windows again"
    assert measure_conflicts(run, batches=1, windows=3).windows == 3
    with pytest.raises(InputError, match="batches is 0"):
        measure_conflicts(run, batches=0)


def test_every_phase_is_looked_at(train_options: dict, tmp_path: Path) -> None:
    options = {key: value for key, value in train_options.items() if key != "agent.hidden"}
    run = train(**options_of(options, tmp_path, "iql", agent="IQL"))
    found = measure_conflicts(run, batches=1)
    assert [phase.phase for phase in found.phases] == [entry.name for entry in run.trained()[0].phases]
    found.save(tmp_path / "found.json")
    assert Conflicts.load(tmp_path / "found.json") == found


def test_the_whole_way(
    train_options: dict, heldout: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run = train(**options_of(train_options, tmp_path, "joint"))
    for task in TASKS:
        train(**options_of(train_options, tmp_path, f"single/{task}", tasks=[task]))
    run.evaluate(Protocol(goals=2), workers=0, quiet=True)
    assert "Where tasks quarrel" not in report(run.folder).read_text(), "before it was measured"
    folder, data = str(run.folder), str(heldout.path)
    command = ["conflicts", folder, "--batches", "2", "--single", str(tmp_path / "single"), "--recorded", data]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "pairs in conflict" in shown and "price of sharing" in shown and "geometric mean" in shown
    content = json.loads((run.folder / "conflicts-last.json").read_text())
    for task in TASKS:
        mine, alone = (Run(it).action_errors(data).tasks[task] for it in (folder, tmp_path / f"single/{task}"))
        assert content["price"]["joint"][task] == mine and content["price"]["single"][task] == alone
        assert content["price"]["ratios"][task] == pytest.approx(mine / alone)
    page = report(run.folder).read_text()
    assert "Where tasks quarrel" in page and "price of sharing" in page
    assert main(["conflicts", folder, "--out", str(tmp_path / "own.json"), "--batches", "1"]) == 0
    assert "price" not in json.loads((tmp_path / "own.json").read_text())
    changed = content | {"source": content["source"] | {"sha256": "0" * 64}}
    (run.folder / "conflicts-last.json").write_text(json.dumps(changed))
    assert kept_conflicts(run, "last") is None, "of an earlier state of the checkpoint"


def test_runs_that_differ_in_more_than_their_tasks_are_refused(
    train_options: dict, heldout: EpisodeStore, store: EpisodeStore, tmp_path: Path
) -> None:
    run = train(**options_of(train_options, tmp_path, "joint"))
    other = collect(PointReach(list(TASKS)), tmp_path / "other", "mixed", episodes=2, workers=0, quiet=True, seed=9)
    for name, more, message in (
        ("width", {"agent.hidden": [8]}, r"differ in agent\.init_args\.hidden: \[16, 16\] and \[8\]"),
        ("normaliser", {"statistics": "tasks"}, r"differ in what they normalise observations with .*--statistics data"),
        ("data", {"data": str(other.path)}, "differ in their data"),
        ("missing", {}, "holds no run of towards-2, away-0 alone"),
    ):
        train(**options_of(train_options, tmp_path, name, tasks=["towards-0"], **more))
        with pytest.raises(InputError, match=message):
            sharing_price(run, [tmp_path / name], heldout.path)
    with pytest.raises(InputError, match="no folder nowhere"):
        sharing_price(run, ["nowhere"], heldout.path)
    assert main(["conflicts", str(run.folder), "--single", str(tmp_path / "width")]) == 2
