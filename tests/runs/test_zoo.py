import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import options_of

import mtorl
from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.grouping import Grouping
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import EvalReport
from mtorl.reports.card import CardFacts, model_card
from mtorl.reports.policy_export import export_policy
from mtorl.runs.policy_files import ONNX_PACKAGES
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.runs.zoo import entries, entry_folder, like_the_card

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def played(baseline: Callable[[dict], Run], tmp_path_factory: pytest.TempPathFactory, store: EpisodeStore) -> Run:
    """A run that was evaluated; nobody changes it."""
    trained = baseline(options_of(store, Path("unused")))
    folder = tmp_path_factory.mktemp("played") / "policy"
    shutil.copytree(trained.folder, folder)
    run = Run(folder)
    run.evaluate(Protocol(goals=4), workers=0, quiet=True)
    return run


@pytest.fixture
def zoo(played: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo with one entry, seen from an empty folder."""
    monkeypatch.setenv("MTORL_ZOO", str(tmp_path / "zoo"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    export_policy(played, tmp_path / "zoo" / "points", "run", licence="mit")
    return tmp_path / "zoo"


def test_an_entry_is_played_as_on_its_card(zoo: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.read_bytes() for path in zoo.rglob("*") if path.is_file()}
    assert main(["evaluate", "zoo:points", "--goals", "2", "--workers", "0", "--quiet", "true"]) == 0
    printed = capsys.readouterr().out
    assert "points (last, step 30)" in printed
    assert "as on the card of zoo:points: 6 of 6 episodes" in printed
    assert Path("runs/zoo/points/evaluations/heldout-last-2.json").exists()
    assert main(["report", "zoo:points"]) == 0
    assert Path("runs/zoo/points/report.html").exists()
    assert before == {path: path.read_bytes() for path in zoo.rglob("*") if path.is_file()}


def test_an_entry_is_small_and_acts_as_the_run(zoo: Path, played: Run) -> None:
    seen = np.random.default_rng(0).normal(size=(3, 4))
    first, second = mtorl.load_policy(played), mtorl.load_policy("zoo:points")
    for task in played.spec.task_names:
        first.reset(task)
        second.reset(task)
        np.testing.assert_array_equal(first.act(seen), second.act(seen))
    sizes = [sum(it.stat().st_size for it in folder.rglob("*.pt")) for folder in (zoo, played.folder)]
    assert sizes[0] < 0.5 * sizes[1]
    kept = Run("zoo:points").reports()
    assert kept[0].protocol.goals == 4 and kept[0].policy == "points (last, step 30)"
    assert kept[0].episodes == played.reports()[0].episodes


def test_damaged_and_unknown_entries_are_refused(zoo: Path, capsys: pytest.CaptureFixture) -> None:
    assert entries().keys() >= {"points"}
    with pytest.raises(InputError, match=r"the zoo has no 'lines'; expected one of points"):
        entry_folder("zoo:lines")
    path = next(zoo.rglob("*.pt"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(InputError, match="is not what SHA256SUMS says: it is damaged, or was changed"):
        Run("zoo:points")
    path.unlink()
    assert main(["evaluate", "zoo:points"]) == 2
    assert "lacks 'checkpoints/step_000000030.pt'" in capsys.readouterr().err


def test_only_episodes_that_were_played_alike_are_compared(played: Run) -> None:
    kept = played.reports()[0]
    assert like_the_card(kept, [kept]) == (12, 12)
    other = list(kept.episodes)
    other[3] = other[3]._replace(success=not other[3].success)
    assert like_the_card(replace(kept, episodes=tuple(other)), [kept]) == (11, 12)
    assert like_the_card(replace(kept, protocol=Protocol("official", 4)), [kept]) is None
    assert like_the_card(replace(kept, protocol=Protocol(goals=4, stop_at_success=True)), [kept]) is None


def test_the_card_says_what_the_evaluation_found(played: Run) -> None:
    card = model_card(played, CardFacts("points", "run", {}, licence="mit"))
    _, front, text = card.split("---\n", 2)
    about = yaml.safe_load(front)
    report: EvalReport = played.reports()[0]
    assert about["license"] == "mit" and about["library_name"] == "mtorl"
    values = {it["dataset"]["name"]: it["metrics"][0]["value"] for it in about["model-index"][0]["results"]}
    assert values.pop("3 tasks of PointReach") == round(report.mean_success, 4)
    assert values == {row.task: round(row.rate, 4) for row in report.tasks()}
    for row in report.tasks():
        assert f"| {row.task} | {row.measure.text()} | {row.measure.interval()} | {row.episodes} |" in text
    assert played.digest() in text and played.spec.data[0]["sha256"] in text
    assert "heldout protocol, 4 goals" in text
    assert played.machine()["versions"]["torch"] in text


@pytest.mark.parametrize("form, file", [("safetensors", "policy.safetensors"), ("torchscript", "policy.pt")])
def test_policies_are_exported_by_the_command(
    form: str, file: str, played: Run, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert main(["export", str(played.folder), "--format", form, "--out", str(out), "--licence", "mit"]) == 0
    assert {path.name for path in out.iterdir()} == {file, "policy.json", "README.md"}
    assert f"{file}" in capsys.readouterr().out
    about = json.loads((out / "policy.json").read_text())
    assert about["source"]["sha256"] == played.digest() and list(about["inputs"]) == ["observations", "task"]
    assert main(["export", str(played.folder), "--format", form, "--out", str(out)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_export_says_what_it_is_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["export", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "mtorl export KIND STORE" in shown and "mtorl export RUN --format safetensors|torchscript|onnx|run" in shown
    assert main(["export", str(tmp_path), "--format", "onnx"]) == 2
    assert "give the folder of its run" in capsys.readouterr().err
    assert main(["export", "--format", "onnx"]) == 2
    assert "'--format' is no kind of data and no run" in capsys.readouterr().err


def test_a_run_of_several_models_is_packed(train_options: dict, tmp_path: Path) -> None:
    names = ("towards-0", "towards-2", "away-0")
    Grouping(names, (0, 1, 0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), 0.5, "by hand").save(
        tmp_path / "groups.json"
    )
    run = train(**train_options, grouping=str(tmp_path / "groups.json"), per_group=True)
    run.evaluate(Protocol(goals=2), workers=0, quiet=True)
    folder = export_policy(run, tmp_path / "packed", "run")
    packed = Run(folder)
    assert packed.reports()[0].episodes == run.reports()[0].episodes
    seen = np.random.default_rng(0).normal(size=(2, 4))
    for task in names:
        policies = [mtorl.load_policy(it) for it in (run, packed)]
        for policy in policies:
            policy.reset(task)
        np.testing.assert_array_equal(*(policy.act(seen) for policy in policies))
    assert "in 2 models" in (folder / "README.md").read_text()
    written = export_policy(run, tmp_path / "tensors", "safetensors")
    assert json.loads((written / "policy.json").read_text())["tasks"] == list(names)


def test_what_was_packed_is_not_trained_on(zoo: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.read_bytes() for path in zoo.rglob("*") if path.is_file()}
    assert main(["train", "--resume", "zoo:points"]) == 2
    assert "was made for acting alone" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in zoo.rglob("*") if path.is_file()}


@pytest.mark.skipif(not (ROOT / "docs/guides/policies.md").exists(), reason="installed without documentation")
def test_the_guide_runs(played: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/guides/policies.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/bc").symlink_to(played.folder)
    commands = [line.split("#")[0].split()[1:] for line in text.splitlines() if line.startswith("mtorl ")]
    assert {command[0] for command in commands} == {"export", "evaluate", "report"}
    for command in commands:
        if command[0] == "evaluate":  # the simulator's
            continue
        if "onnx" in command and any(importlib.util.find_spec(name) is None for name in ONNX_PACKAGES):
            continue
        assert main(command) == 0, command
    seen = np.zeros((5, 4), dtype=np.float32)
    variables = {"observation": seen, "observations": torch.from_numpy(seen)}
    first, second = (code.split("```")[0] for code in text.split("```python\n")[1:])
    exec(first.replace("reach-v3", "away-0"), variables)
    played_action = variables["action"]
    exec(second.replace("reach-v3", "away-0"), variables)
    np.testing.assert_allclose(variables["actions"].numpy(), played_action, atol=1e-6)


@pytest.mark.parametrize("entry", sorted(path.parent.name for path in (ROOT / "zoo").glob("*/SHA256SUMS")))
def test_the_entries_of_the_package_are_whole(entry: str) -> None:
    folder = entry_folder(f"zoo:{entry}")
    run = Run(folder)
    policy = mtorl.load_policy(run)
    policy.reset(run.spec.task_names[0])
    assert np.isfinite(policy.act(np.zeros(run.spec.observation_dim))).all()
    card = (folder / "README.md").read_text()
    report = run.reports()[0]
    assert (
        run.digest() in card and f"| **mean of {len(report.task_names)} tasks** | **{report.mean_success:.1%}**" in card
    )
    assert str(ROOT.parent) not in card


def test_the_zoo_is_small() -> None:
    files = [path for path in (ROOT / "zoo").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
