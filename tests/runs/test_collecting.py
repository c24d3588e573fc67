"""Policies by their names, and what a trained run does as data."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mtorl import InputError
from mtorl.agents import PromptDecisionTransformer
from mtorl.commands.main import main
from mtorl.datasets.opening import open_stores
from mtorl.datasets.store import EpisodeStore, sha256
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.reports.data import commands_for
from mtorl.runs.collecting import behavior_policy
from mtorl.runs.data import describe_data
from mtorl.runs.run import Run

MODULE = """
import numpy as np

class Still:
    def __init__(self, suite, speed=0.0):
        self.size, self.speed = suite.action_dim, speed
    def reset(self, context):
        pass
    def act(self, observations, rewards):
        return np.full((len(observations), self.size), self.speed, np.float32)

def moving(suite):
    return Still(suite, 0.5)

def nothing():
    pass

def unfinished(suite):
    return object()

NUMBER = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_behaviors.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_behaviors"


@pytest.fixture
def run(baseline: Callable[[dict], Run], train_options: dict) -> Run:
    return baseline(train_options)


def record(name: str, out: Path, workers: int = 0, **options: object) -> EpisodeStore:
    policy = behavior_policy(name, **options)  # type: ignore[arg-type]
    return collect(policy.suite, out, episodes=12, workers=workers, quiet=True, policy=policy)


def test_a_run_is_recorded_as_it_is_evaluated(run: Run, tmp_path: Path) -> None:
    folder = str(run.folder)
    store = record(folder, tmp_path / "data")
    report = run.evaluate(Protocol("official", goals=12), workers=0, quiet=True)
    for played, episode in zip(report.episodes, store, strict=True):
        assert (episode.task, episode.goal, len(episode)) == (played.task, played.goal, played.length)
        assert played.reward == pytest.approx(float(episode.rewards.sum()), rel=1e-5)
    source = store.manifest["source"]
    assert (source["policy"], source["checkpoint"], source["step"]) == (folder, "last", 30)
    assert source["sha256"] == sha256(run.checkpoints().file("last")) and source["sha256"] in str(
        store.manifest["card"]
    )
    there = record(folder, tmp_path / "there", workers=2)
    for path in store.path.iterdir():
        assert path.read_bytes() == (there.path / path.name).read_bytes(), path.name
    noisy = record(folder, tmp_path / "noisy", noise=0.3)
    first = [np.stack([episode.actions[0] for episode in it]) for it in (store, noisy)]
    assert 0.15 < np.std(first[1] - first[0]) < 0.4
    with pytest.raises(InputError, match="checkpoint: 'last' there, '20' asked for"):
        record(folder, store.path, checkpoint="20")


def test_the_command_and_the_page(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data, again = tmp_path / "data", tmp_path / "again"
    words = ["--policy", str(run.folder), "--noise", "0.1", "--episodes", "2", "--workers", "0", "--quiet", "true"]
    assert main(["collect", *words, "--out", str(data)]) == 0
    assert f"policy {run.folder}, checkpoint last" in " ".join(capsys.readouterr().out.split())
    (command,) = commands_for([describe_data(open_stores([data]))])
    assert main([*shlex.split(command)[1:-1], str(again), "--quiet", "true", "--workers", "0"]) == 0
    assert (again / "manifest.json").read_bytes() == (data / "manifest.json").read_bytes()


def test_a_prompted_agent_is_shown_and_told(
    baseline: Callable[[dict], Run], train_options: dict, suite: PointReach, tmp_path: Path
) -> None:
    agent = {
        "class_path": PromptDecisionTransformer.__name__,
        "init_args": {"width": 16, "layers": 1, "attention_heads": 2, "context": 4, "dropout": 0.0},
    }
    options = {key: value for key, value in train_options.items() if key != "agent.hidden"}
    schedule = {"steps": 2, "log_every": 2, "evaluate_every": 0, "save_every": 2}
    folder = str(baseline(options | {"agent": agent, "schedule": schedule}).folder)
    shown = collect(suite, tmp_path / "shown", episodes=2, split="heldout", workers=0, quiet=True)
    store = record(folder, tmp_path / "data", noise=0.2, demonstrations=str(shown.path))
    assert store.manifest["source"]["demonstrations_sha256"] == sha256(shown.path / "manifest.json")
    policy = behavior_policy(folder, demonstrations=str(shown.path)).policy
    assert hasattr(policy, "acted")
    with pytest.raises(InputError, match="recorded on the goals that the protocol official plays"):
        same = collect(suite, tmp_path / "same", episodes=2, workers=0, quiet=True)
        record(folder, tmp_path / "other", demonstrations=str(same.path))


def test_a_class_by_its_import_path(module: str, suite: PointReach, tmp_path: Path) -> None:
    still = record(f"{module}.Still", tmp_path / "still", suite=suite)
    moving = record(f"{module}.moving", tmp_path / "moving", suite=suite)
    assert not still.actions.any() and (moving.actions == 0.5).all()
    sources = [store.manifest["source"] for store in (still, moving)]
    assert sources[0]["policy"] == f"{module}.Still" and sources[0]["sha256"] != sources[1]["sha256"]
    there = record(f"{module}.moving", tmp_path / "there", workers=1, suite=suite)
    assert there.manifest == moving.manifest


@pytest.mark.parametrize("name", ["random", "expert"])
def test_references(name: str, suite: PointReach, tmp_path: Path) -> None:
    store = record(name, tmp_path / "data", suite=suite)
    assert (min(task["success_rate"] for task in store.manifest["tasks"]) == 1) == (name == "expert")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/none", "runs/none is neither the folder of a run, nor an import path such as"),
        ("nobody", "nobody is neither"),
        ("no_such_module.Policy", "no_such_module cannot be imported"),
        ("my_behaviors.Stil", r"my_behaviors has no Stil\. Did you mean my_behaviors\.Still\?"),
        ("my_behaviors.NUMBER", "NUMBER is 3; expected a class or function"),
        ("my_behaviors.nothing", "cannot be called with a suite"),
        ("my_behaviors.unfinished", "lacks reset and act; expected a policy"),
    ],
)
def test_a_wrong_name_is_told(module: str, suite: PointReach, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        behavior_policy(name, suite)


def test_what_does_not_fit_is_told(module: str, suite: PointReach, run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--checkpoint and --act_with are for runs"):
        behavior_policy(f"{module}.Still", suite, checkpoint="best")
    with pytest.raises(InputError, match="is no run and needs a suite"):
        behavior_policy(f"{module}.Still")
    other = PointReach(suite.task_names[::-1])
    with pytest.raises(InputError, match="the policy knows the tasks"):
        record(str(run.folder), tmp_path / "data", suite=other)
    wide = PointReach(suite.task_names)
    wide.observation_dim = 5
    with pytest.raises(InputError, match="acts where observation_dim is 4; PointReach has 5"):
        behavior_policy(str(run.folder), wide)
