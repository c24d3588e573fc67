import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.reports.masks import export_masks, summarise
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.sharing import SoftMasks
from mtorl.trainers.sharing.masks import TaskMasks


@pytest.fixture
def run(train_options: dict) -> Run:
    options = {"agent.task_identity": "none", "sharing.interval": 5, "sharing.sparsity": 0.5}
    return train(**train_options, sharing="HarmonyMasks", **options)


def test_a_summary_says_what_the_masks_are(run: Run) -> None:
    (summary,) = summarise(run)
    masks = run.sharing()["policy"]
    assert isinstance(masks, TaskMasks) and summary.phase == "policy"
    for one in range(3):
        for other in range(3):
            both = (masks.masks[one] & masks.masks[other]).double().mean()
            assert float(summary.overlap[one, other]) == pytest.approx(float(both))
    for name, place in masks.places.items():
        part = masks.masks[:, place.mine]
        assert summary.densities[name].tolist() == part.double().mean(1).tolist()
        assert summary.everyone[name] == float(part.all(0).double().mean())
        assert summary.nobody[name] == float((~part.any(0)).double().mean())
    assert [step for step, _ in summary.moves] == [5, 10, 15, 20, 25, 30]
    assert 0 < summary.moves[2][1] <= summary.changed == summary.moves[-1][1], "the run's own first masks are known"
    assert 0.2 < summary.chance() < 0.3 and 0.2 < summary.pair_mean() < 0.4


def test_soft_masks_have_a_summary_and_are_not_exported(train_options: dict, tmp_path: Path) -> None:
    run = train(**train_options, **{"agent.task_identity": "none", "sharing": "SoftMasks", "sharing.interval": 5})
    (summary,) = summarise(run)
    masks = run.sharing()["policy"]
    assert isinstance(masks, SoftMasks)
    values = masks.masks.double()
    torch.testing.assert_close(summary.overlap, values @ values.T / values.shape[1], rtol=1e-5, atol=0)
    for name, place in masks.places.items():
        part = values[:, place.mine]
        assert summary.densities[name].tolist() == part.mean(1).tolist()
        assert summary.everyone[name] == pytest.approx(float(part.amin(0).mean())) and summary.everyone[name] < 1
        assert summary.nobody[name] == pytest.approx(float(1 - part.amax(0).mean()), abs=1e-12)
    assert 0 < summary.changed == summary.moves[-1][1] < 0.5 and "held back" in summary.moved
    with pytest.raises(InputError, match="has SoftMasks, whose values lie between 0 and 1"):
        export_masks(run, tmp_path / "masks.safetensors")


def test_a_run_without_masks_has_no_summary(train_options: dict, capsys: pytest.CaptureFixture) -> None:
    run = train(**train_options)
    assert summarise(run) == []
    assert main(["masks", str(run.folder)]) == 2
    assert "has no masks" in capsys.readouterr().err
    with pytest.raises(InputError, match="has no masks"):
        export_masks(run, run.folder / "masks.safetensors")


def test_exported_masks_train_another_run(run: Run, train_options: dict, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "masks.safetensors"
    assert main(["masks", str(run.folder), "--export", str(path)]) == 0
    assert "exported" in capsys.readouterr().out
    masks = run.sharing()["policy"]
    assert isinstance(masks, TaskMasks)
    for name, value in load_file(path).items():
        assert value.dtype == torch.bool and torch.equal(value[1], masks.mask(name, 1))
    for rotate in (0, 1):
        options = {**train_options, "out": str(tmp_path / f"frozen{rotate}"), "sharing": "FrozenMasks"}
        options |= {"agent.task_identity": "none", "sharing.file": str(path), "sharing.rotate": rotate}
        other = train(**options)
        found = other.sharing()["policy"]
        assert isinstance(found, TaskMasks)
        np.testing.assert_array_equal(found.masks, masks.masks.roll(-rotate, 0))
        assert not [row for row in json.loads(f"[{','.join(_lines(other))}]") if row["kind"] == "sharing"]


def _lines(run: Run) -> list[str]:
    return (run.folder / "log.jsonl").read_text().splitlines()


def test_files_that_do_not_fit_are_refused(run: Run, train_options: dict, tmp_path: Path) -> None:
    path = export_masks(run, tmp_path / "masks.safetensors")
    options = {**train_options, "out": str(tmp_path / "other"), "sharing": "FrozenMasks", "sharing.file": str(path)}
    options |= {"agent.task_identity": "none"}
    with pytest.raises(InputError, match=r"another network \(backbone\.layers\.0\.weight: expected \[20, \d+\], found"):
        train(**{**options, "agent.hidden": [20, 16]})
    with pytest.raises(InputError, match=r"are of the tasks \['towards-0', .*; expected \['towards-0', 'away-0'\]"):
        train(**options, tasks=["towards-0", "away-0"])
    save_file(load_file(path), path)  # without the tasks' names
    with pytest.raises(InputError, match="are 3; expected 2"):
        train(**options, tasks=["towards-0", "away-0"])
    path.write_text("something else")
    with pytest.raises(InputError, match="cannot be read as exported masks"):
        train(**options)
    save_file({"weight": torch.ones(3, 4, 5)}, path)
    with pytest.raises(InputError, match=r"holds no masks.*found \['weight'\]"):
        train(**options)
    with pytest.raises(InputError, match="cannot be read"):
        train(**{**options, "sharing.file": str(tmp_path / "none")})
    assert not (tmp_path / "other").exists()
