"""Gradients of tasks at the parameters of trained runs, and what sharing costs."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.files import DamageWarning
from mtorl.reports.run_report import report
from mtorl.runs.conflicts import Conflicts, conflicts_path, kept_conflicts, measure_conflicts
from mtorl.runs.run import Run
from mtorl.runs.sharing_price import SharingPrice, sharing_price
from mtorl.runs.training import train
from mtorl.trainers.phase_trainer import phase_functions

Baseline = Callable[[dict], Run]
TASKS = ("towards-0", "towards-2", "away-0")
QUICK = {"schedule": {"steps": 20, "evaluate_every": 0, "save_every": 10}, "statistics": "data"}


@pytest.fixture
def run(baseline: Baseline, train_options: dict, tmp_path: Path) -> Run:
    """Of three tasks that the network is not told: it cannot go towards a goal and away from it."""
    made = baseline(train_options | QUICK | {"agent.task_identity": "none", "optimizer": {"lr": 1e-6}})
    return Run(shutil.copytree(made.folder, tmp_path / "joint"))


@pytest.fixture
def alone(baseline: Baseline, train_options: dict, tmp_path: Path) -> Path:
    """A folder with a run of each task alone, trained as `run` is."""
    for task in TASKS:
        options = {"agent.task_identity": "none", "optimizer": {"lr": 1e-6}, "tasks": [task]}
        shutil.copytree(baseline(train_options | QUICK | options).folder, tmp_path / "alone" / task)
    return tmp_path / "alone"


@pytest.fixture(scope="module")
def recorded(suite: PointReach, tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    path = tmp_path_factory.mktemp("recorded") / "heldout"
    return collect(suite, path, "expert", episodes=2, split="heldout", workers=0, quiet=True)


def test_they_are_those_of_the_mean_gradients(run: Run) -> None:
    found = measure_conflicts(run, batches=3, windows=5)
    (phase,) = found.phases
    assert (found.batches, found.windows, phase.phase, tuple(phase.tasks)) == (3, 5, "policy", TASKS)
    agent, sharing, source = run.trained()
    assert found.source == source
    experiment = replace(run.configuration.experiment(), windows=5)
    sampler = experiment.build_probe(experiment.open_data()[0], agent, "conflicts policy")
    functions = phase_functions(agent, agent.phases[0], sharing)
    drawn = [functions.gradients(sampler.draw(), sharing["policy"])[0].pulled_back.clone() for _ in range(3)]
    rows, apart = torch.stack(drawn).mean(0), torch.stack([part @ part.T < 0 for part in drawn]).double().mean(0)
    norms = rows.norm(dim=1)
    expected = rows @ rows.T / norms[:, None] / norms
    np.testing.assert_allclose(phase.cosines, expected, atol=1e-4)
    np.testing.assert_allclose(phase.conflict_rate, apart, atol=1e-6)
    np.testing.assert_allclose([*phase.norm.values()], norms, rtol=1e-5)
    noise = torch.stack(drawn).var(0).sum(1) / 3  # variance of a mean of three
    np.testing.assert_allclose([*phase.noise.values()], (noise / norms**2).clamp(max=1), rtol=1e-4)
    assert set(measure_conflicts(run, batches=1).phases[0].noise.values()) == {1.0}
    pairs = expected[[0, 0, 1], [1, 2, 2]]
    assert phase.negative_pairs == pytest.approx(float((pairs < 0).double().mean()))
    assert phase.mean_cosine == pytest.approx(float(pairs.mean()), abs=1e-4)
    assert phase.least_cosine == pytest.approx(float(pairs.min()), abs=1e-4)
    assert phase.mean_rate == pytest.approx(float(apart[[0, 0, 1], [1, 2, 2]].mean()))


def test_opposite_tasks_quarrel_and_nothing_moves(run: Run) -> None:
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    found = measure_conflicts(run, batches=64)
    assert found == measure_conflicts(run, batches=64)
    assert before == {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    (phase,) = found.phases
    assert phase.pairs()[0] == (phase.cosines[0][2], "towards-0", "away-0") and phase.least_cosine < -0.2
    assert measure_conflicts(run, "10", batches=1).source.step == 10


@pytest.mark.parametrize("agent", ["IQL", "DualPolicy"])
def test_every_phase_and_through_masks(agent: str, train_options: dict, baseline: Baseline) -> None:
    options = {key: value for key, value in train_options.items() if key != "agent.hidden"} | QUICK
    small = {"agent.width": 16, "agent.layers": 1, "agent.attention_heads": 2, "agent.context": 4}
    options |= {"agent": agent, "sharing": "RandomMasks", "windows": 4} | (small if agent == "DualPolicy" else {})
    run = baseline(options)
    found, sharing = measure_conflicts(run, batches=1), run.sharing()
    assert [phase.phase for phase in found.phases] == [*sharing]
    for phase in found.phases:
        assert np.isfinite(phase.cosines).all() and min(phase.norm.values()) > 0


def test_the_file(run: Run, tmp_path: Path) -> None:
    price = SharingPrice("data", {"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 2.0}, ["windows: 3 and 4"])
    found = measure_conflicts(run, batches=2)
    for it in (found, replace(found, price=price)):
        it.save(tmp_path / "found.json")
        assert Conflicts.load(tmp_path / "found.json") == it
    content = json.loads((tmp_path / "found.json").read_text())
    content["phases"][0]["conflict_rate"][1] = [0, 2, 0]
    (tmp_path / "found.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"phases\[0\]\.conflict_rate\[1\]\[1\] is 2; expected .* in \[0, 1\]"):
        Conflicts.load(tmp_path / "found.json")


def test_what_cannot_be_measured_is_refused(run: Run, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is a run of one task, which has none to quarrel with"):
        measure_conflicts(Run(alone / TASKS[0]))
    for options in ({"batches": 0}, {"windows": 0}):
        with pytest.raises(InputError, match="at least 1"):
            measure_conflicts(run, **options)
    agent, sharing, source = run.trained()
    with torch.no_grad():
        agent.backbone.layers[0].weight.fill_(float("nan"))  # type: ignore[union-attr, index, operator]
    monkeypatch.setattr(Run, "trained", lambda *_: (agent, sharing, source))
    with pytest.raises(InputError, match="gradients of towards-0, towards-2, away-0 are not finite in phase policy"):
        measure_conflicts(run)


def test_the_price_of_sharing(run: Run, alone: Path, recorded: EpisodeStore) -> None:
    price = sharing_price(run, [alone], recorded.path)
    for task in TASKS:
        single = Run(alone / task).action_errors(recorded.path).tasks[task]
        assert price.single[task] == single
        assert price.ratios[task] == pytest.approx(run.action_errors(recorded.path).tasks[task] / single)
    assert price.mean_ratio == pytest.approx(math.prod(price.ratios.values()) ** (1 / 3))
    assert price.unlike == []
    assert sharing_price(run, [alone / task for task in TASKS], recorded.path) == price
    assert sharing_price(run, [alone, alone / TASKS[1]], recorded.path) == price, "no run counts twice"
    even = SharingPrice("data", {"a": 2.0, "b": 1.0}, {"a": 1.0, "b": 2.0}, [])
    assert even.ratios == {"a": 2.0, "b": 0.5} and even.mean_ratio == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent.hidden": [16, 8]}, r"agent\.init_args\.hidden: \[16, 16\] and \[16, 8\]"),
        ({"statistics": "tasks"}, r"normalise observations with \(train with --statistics data\)"),
    ],
)
def test_runs_that_differ_in_more_than_tasks_are_refused(
    change: dict, message: str, run: Run, alone: Path, recorded: EpisodeStore, train_options: dict, baseline: Baseline
) -> None:
    options = train_options | QUICK | {"agent.task_identity": "none", "optimizer": {"lr": 1e-6}, "tasks": [TASKS[1]]}
    shutil.rmtree(alone / TASKS[1])
    shutil.copytree(baseline(options | change).folder, alone / TASKS[1])
    with pytest.raises(InputError, match=message):
        sharing_price(run, [alone], recorded.path)


def test_prices_that_say_nothing_are_refused(
    run: Run, alone: Path, recorded: EpisodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="joint holds no run for a single task"):
        sharing_price(run, [run.folder], recorded.path)
    with pytest.raises(InputError, match="no folder nowhere"):
        sharing_price(run, ["nowhere"], recorded.path)
    with pytest.raises(InputError, match="holds no run of towards-2, away-0 alone"):
        sharing_price(run, [alone / TASKS[0]], recorded.path)
    config = alone / TASKS[1] / "config.yaml"
    text = config.read_text()
    config.write_text(text.replace("windows: 8", "windows: 4"))
    with pytest.raises(InputError, match="differs from that of the checkpoint"):  # a run is played as it was trained
        sharing_price(run, [alone], recorded.path)
    config.write_text(text)
    spec = alone / TASKS[1] / "data_spec.json"
    content = json.loads(spec.read_text())
    content["data"][0]["sha256"] = "other"
    spec.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"their data \(the manifests' hashes\)"):
        sharing_price(run, [alone], recorded.path)
    content["data"][0]["sha256"] = run.spec.data[0]["sha256"]
    spec.write_text(json.dumps(content))
    errors = run.action_errors(recorded.path)
    exact = replace(errors, tasks=errors.tasks | {TASKS[2]: 0.0})
    monkeypatch.setattr(Run, "action_errors", lambda *_: exact)
    with pytest.raises(InputError, match="actions of away-0 are without any error"):
        sharing_price(run, [alone], recorded.path)


def test_other_training_is_said(
    run: Run, alone: Path, recorded: EpisodeStore, train_options: dict, baseline: Baseline
) -> None:
    options = train_options | QUICK | {"agent.task_identity": "none", "optimizer": {"lr": 1e-6}, "tasks": [TASKS[1]]}
    shutil.rmtree(alone / TASKS[1])
    shutil.copytree(baseline(options | {"windows": 4}).folder, alone / TASKS[1])
    assert sharing_price(run, [alone], recorded.path).unlike == ["windows: 8 and 4 (all tasks and towards-2)"]


def test_the_command(
    run: Run, alone: Path, recorded: EpisodeStore, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert kept_conflicts(run) is None
    out = ["--out", str(tmp_path / "other.json")]
    assert main(["conflicts", str(run.folder), "--batches", "2", *out]) == 0
    text = capsys.readouterr().out
    assert "phase policy, step 20" in text and "of 3 pairs point apart" in text and "price" not in text
    assert Conflicts.load(tmp_path / "other.json") == measure_conflicts(run, batches=2)
    assert main(["conflicts", str(run.folder), "--single", str(alone)]) == 2
    assert "needs both --single" in capsys.readouterr().err
    both = ["--single", *[str(alone / task) for task in TASKS], "--recorded", str(recorded.path)]
    assert main(["conflicts", str(run.folder), "--batches", "2", *both]) == 0
    text = capsys.readouterr().out
    found = kept_conflicts(run)
    assert (
        found
        and found.price
        and f"geometric mean of 3 tasks │           │         │  {found.price.mean_ratio:.2f}" in text
    )
    assert main(["conflicts", str(run.folder), "--batches", "3"]) == 0
    again = kept_conflicts(run)
    assert again and again.batches == 3 and again.price == found.price, "measured of the same weights: it is kept"


def test_the_report_shows_what_was_found(run: Run, capsys: pytest.CaptureFixture) -> None:
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)
    assert "Where tasks quarrel" not in report(run).read_text()
    found = replace(measure_conflicts(run, batches=2), price=SharingPrice("held", *[dict.fromkeys(TASKS, 2.0)] * 2, []))
    found.save(conflicts_path(run, "last"))
    page = report(run).read_text()
    for words in ("Where tasks quarrel", "2 batches, 8 windows per task", "Sharing costs 1.00 times", "on held"):
        assert words in page
    replace(found, source=replace(found.source, sha256="of another")).save(conflicts_path(run, "last"))
    assert kept_conflicts(run, "10") is None
    with pytest.warns(DamageWarning, match="the checkpoint last has changed since. Run `mtorl conflicts"):
        assert "Where tasks quarrel" not in report(run).read_text()


def test_reports_of_runs_without_checkpoints_say_nothing_of_them(run: Run, recwarn: pytest.WarningsRecorder) -> None:
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)
    found = measure_conflicts(run, batches=1)
    shutil.rmtree(run.folder / "checkpoints")
    assert kept_conflicts(run) is None
    report(run)
    assert not [it for it in recwarn if it.category is DamageWarning]
    found.save(conflicts_path(run, "last"))
    assert kept_conflicts(run) == found, "nothing contradicts it"


def test_runs_with_a_model_for_each_group(
    train_options: dict, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Each of their models has tasks that may quarrel; a report of the whole has no conflicts, and no warning."""
    affinity = ((1.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 1.0))
    Grouping(TASKS, (0, 1, 0), affinity, 0.5, "by hand").save(tmp_path / "groups.json")
    run = train(**(train_options | QUICK), grouping=str(tmp_path / "groups.json"), per_group=True)
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)
    report(run)
    assert not [it for it in recwarn if it.category is DamageWarning]
    with pytest.raises(InputError, match="holds a model for each of 2 groups of tasks"):
        measure_conflicts(run)
    assert measure_conflicts(run.parts[0], batches=1).phases[0].tasks == ["towards-0", "away-0"]
