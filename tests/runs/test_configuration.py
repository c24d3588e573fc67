"""Options are parsed once, and objects become options again."""

from functools import partial
from pathlib import Path

import pytest
import torch
from families import BALANCER_OPTIONS, BALANCERS, WRAPPERS, concrete

import mtorl
from mtorl import InputError
from mtorl.agents import TD3BC, BehaviorCloning
from mtorl.agents.networks import FiLM, MLPBackbone
from mtorl.arguments import Parser
from mtorl.datasets.store import EpisodeStore
from mtorl.documents import inline_yaml
from mtorl.runs.configuration import Configuration, described, train_parser
from mtorl.runs.experiment import Experiment
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.balancers import Equal, PCGrad, Rescaled, UPGrad
from mtorl.trainers.optimizer import OptimizerSettings
from mtorl.trainers.schedule import Schedule
from mtorl.trainers.sharing import FrozenMasks, GroupMasks, HarmonyMasks, Shared, Sharing

SHARING = [k for k in concrete(Sharing) if not k.__abstractmethods__ and k.__module__.startswith("mtorl.")]


def configured(arguments: list[str]) -> Configuration:
    return Configuration.parse([*arguments, "--data=d", "--out=o"])


@pytest.mark.parametrize("kind", BALANCERS)
def test_balancers_keep_their_options(kind: type) -> None:
    options = {key: value for key, value in BALANCER_OPTIONS.get(kind.__name__, {}).items() if key.startswith("bal")}
    begun = configured([f"--balancer={kind.__name__}", *(f"--{key}={value}" for key, value in options.items())])
    again = configured([f"--balancer={inline_yaml(described(begun.experiment().balancer))}"])
    assert again.plain["balancer"] == begun.plain["balancer"]


@pytest.mark.parametrize("kind", SHARING)
def test_sharing_keeps_its_options(kind: type, tmp_path: Path) -> None:
    given = {FrozenMasks: {"file": "m"}, GroupMasks: {"grouping": "g.json"}}.get(kind, {})
    begun = configured([f"--sharing={kind.__name__}", *(f"--sharing.{key}={value}" for key, value in given.items())])
    again = configured([f"--sharing={inline_yaml(described(begun.experiment().sharing))}"])
    assert again.plain["sharing"] == begun.plain["sharing"]


def experiment(store: EpisodeStore, out: Path, **changes: object) -> Experiment:
    usual: dict = {
        "data": [str(store.path)],
        "out": str(out),
        "agent": partial(BehaviorCloning, hidden=(12, 8)),
        "balancer": Rescaled(PCGrad(), mode="sum_to_T"),
        "sharing": HarmonyMasks(sparsity=0.3, interval=10),
        "optimizer": OptimizerSettings(lr=0.003),
        "schedule": Schedule(steps=20, save_every=10, evaluate_every=10),
        "windows": 4,
        "evaluate_goals": 2,
        "workers": 0,
        "threads": 1,
        "quiet": True,
    }
    return Experiment(**{**usual, **changes})


def test_objects_train_as_their_options_do(store: EpisodeStore, tmp_path: Path) -> None:
    ours = train(experiment(store, tmp_path / "objects"))
    theirs = mtorl.train(ours.folder / "config.yaml", out=tmp_path / "options")
    one, two = (run.checkpoints().load()["agent"] for run in (ours, theirs))
    assert all(torch.equal(one[name], value) for name, value in two.items())
    assert ours.configuration.plain["balancer"] == {
        "class_path": "mtorl.trainers.balancers.Rescaled",
        "init_args": {"inner": {"class_path": "mtorl.trainers.balancers.PCGrad"}, "mode": "sum_to_T"},
    }
    (ours.folder / "checkpoints" / "step_000000020.pt").unlink()
    again = train(resume=ours)
    assert all(torch.equal(again.checkpoints().load()["agent"][name], value) for name, value in one.items())
    assert 0 <= mtorl.evaluate(ours, goals=2, workers=0, quiet=True).mean_success <= 1
    assert mtorl.load_policy(ours.folder).task_names == store.task_names


def test_networks_and_classes_are_described(store: EpisodeStore, tmp_path: Path) -> None:
    agent = partial(TD3BC, actor=partial(FiLM, hidden=(8,)), critic=partial(MLPBackbone, hidden=(8,)))
    found = Configuration.of(experiment(store, tmp_path / "a", agent=agent, sharing=Shared())).plain["agent"]
    assert found["init_args"]["actor"] == {"class_path": "mtorl.agents.networks.FiLM", "init_args": {"hidden": [8]}}
    found = Configuration.of(experiment(store, tmp_path / "b", agent=BehaviorCloning, balancer=UPGrad())).plain
    assert found["agent"]["init_args"]["hidden"] == [400, 400, 400]


def test_what_has_no_name_is_refused(store: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a class, or functools.partial|cannot be written"):
        train(experiment(store, tmp_path / "a", agent=lambda spec: BehaviorCloning(spec)))

    class Forgetful(Equal):
        def __init__(self, scale: float = 1.0) -> None:
            super().__init__()

    with pytest.raises(InputError, match="Forgetful does not say what its option scale is"):
        train(experiment(store, tmp_path / "b", balancer=Forgetful()))
    with pytest.raises(InputError, match="an Experiment says everything"):
        train(experiment(store, tmp_path / "c"), seed=3)
    assert not list(tmp_path.iterdir())


def test_the_parser_is_built_once(train_options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    built, parsed = [], []
    init, parse = Parser.__init__, Configuration.parse.__func__  # type: ignore[attr-defined]
    monkeypatch.setattr(Parser, "__init__", lambda self, *a, **k: (built.append(self), init(self, *a, **k))[1])
    monkeypatch.setattr(Configuration, "parse", classmethod(lambda cls, a: (parsed.append(a), parse(cls, a))[1]))
    train_parser.cache_clear()
    folder = train(**train_options).folder
    assert len([it for it in built if it.prog == "mtorl train"]) == 1 and len(parsed) == 1
    parsed.clear()
    run = Run(folder)
    run.policy()
    run.policy("best")
    run.sharing()
    assert len(parsed) == 1, "an opened run is parsed once"
    assert len([it for it in built if it.prog == "mtorl train"]) == 1


def test_every_stage_can_hold_others() -> None:
    assert {kind.__name__ for kind in WRAPPERS} <= BALANCER_OPTIONS.keys()


def test_paths_of_earlier_versions_are_read_and_written_anew() -> None:
    with pytest.warns(DeprecationWarning, match=r"mtorl.agents.care.CARE is now mtorl.agents.networks.care.CARE"):
        found = configured(["--agent.network=mtorl.agents.care.CARE"])
    assert found.plain["agent"]["init_args"]["network"]["class_path"] == "mtorl.agents.networks.CARE"


def test_values_without_names_are_refused(store: EpisodeStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has values without names"):
        Configuration.of(experiment(store, tmp_path / "a", agent=partial(BehaviorCloning, 3)))


def test_what_is_no_option_of_an_evaluation_is_named(train_options: dict) -> None:
    with pytest.raises(InputError, match=r"unknown options \['goal'\]; expected some of goals, stop_at_success"):
        mtorl.evaluate(train_options["out"], goal=3)


def test_the_package_shows_its_parts() -> None:
    assert mtorl.envs.PointReach and mtorl.agents.BehaviorCloning and mtorl.trainers and mtorl.datasets.EpisodeStore
    assert "InputError" in mtorl.__all__ and "train" in dir(mtorl)
