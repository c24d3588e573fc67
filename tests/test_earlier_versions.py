"""What earlier versions wrote loads, plays and trains on to the same numbers.

The archive holds a data set and, of several agents, a run with two checkpoints and an evaluation:

    D="--data points --schedule.steps 40 --schedule.save_every 20 --windows 4 --evaluate_goals 2 --threads 1 ..."
    mtorl collect --suite PointReach --suite.tasks towards-0 towards-2 away-0 --recipe mixed --episodes 3 --out points
    mtorl train $D --agent BehaviorCloning --balancer Rescaled --sharing HarmonyMasks --out runs/bc
    mtorl evaluate runs/bc --goals 4
"""

import importlib
import zipfile
from pathlib import Path

import pytest
import torch

from mtorl import earlier
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.results import EvalReport
from mtorl.runs.run import Run
from mtorl.runs.training import train

ARCHIVE = Path(__file__).parent / "fixtures" / "runs_of_6990594.zip"
RUNS = ("bc", "prompt_dt", "iql", "m3dt", "dual_policy")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the archive lies open, as the current folder: configurations name their data from there."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def close(found: dict, expected: dict) -> bool:
    """Other processors round otherwise."""
    assert found.keys() == expected.keys()
    tensors = {name: value for name, value in expected.items() if torch.is_tensor(value)}
    return all(torch.allclose(found[name].double(), it.double(), rtol=1e-3, atol=1e-4) for name, it in tensors.items())


def test_a_store_opens(folder: Path) -> None:
    store = EpisodeStore(folder / "points")
    store.verify()
    assert len(store) == 9 and store.task_names == ("towards-0", "towards-2", "away-0")


@pytest.mark.parametrize("name", RUNS)
def test_a_run_plays_as_it_did(folder: Path, name: str) -> None:
    run = Run(folder / "runs" / name)
    kept = run.reports("heldout")[0]
    played = run.evaluate(kept.protocol, workers=0, quiet=True)
    assert isinstance(kept, EvalReport) and len(played.episodes) == len(kept.episodes) == 12
    for ours, theirs in zip(played.episodes, kept.episodes, strict=True):
        assert ours[:4] == theirs[:4] and ours.length == theirs.length
        assert ours.reward == pytest.approx(theirs.reward, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_trains_on_as_it_did(folder: Path, name: str) -> None:
    checkpoints = folder / "runs" / name / "checkpoints"
    ends = torch.load(checkpoints / "step_000000040.pt", weights_only=True)
    (checkpoints / "step_000000040.pt").unlink()
    run = train(resume=folder / "runs" / name)
    state = run.checkpoints().load()
    assert state["step"] == 40 and state["evaluated"] == ends["evaluated"]
    assert close(state["agent"], ends["agent"])
    for phase, sharing in ends["sharing"].items():
        assert close(state["sharing"][phase], sharing)


@pytest.mark.parametrize("module", earlier.PLACES)
def test_names_of_scripts_lead_to_their_present_places(module: str) -> None:
    for name, place in earlier.PLACES[module].items():
        home, _, present = f"mtorl.{place}".rpartition(".")
        with pytest.warns(DeprecationWarning, match=f"{module}.{name} is now {home}.{present}"):
            found = getattr(importlib.import_module(module), name)
        assert found is getattr(importlib.import_module(home), present)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = importlib.import_module(module).nonsense
