"""Small real objects that many tests share."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mtorl.datasets.spec import DataSpec, describe_stores
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.families import FAMILIES, load
from mtorl.runs.run import Run
from mtorl.runs.training import train

load(*FAMILIES)  # contracts find the members of a family among the classes that are loaded
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # `nohup` and some runners ignore it, and children inherit that
TASKS = ["towards-0", "towards-2", "away-0"]
TRAINS = ("train", "ablate")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that train whole runs: `make check` leaves them out."""
    for item in items:
        if isinstance(item, pytest.Function) and _trains(item):
            item.add_marker("training")


def _trains(item: pytest.Function) -> bool:
    """Whether a test or one of its fixtures names a function that trains, or takes the options of a run."""
    fixtures = [found[-1].func for name, found in item._fixtureinfo.name2fixturedefs.items()]
    named = {name for it in (item.function, *fixtures) for name in it.__code__.co_names}
    return not {"train_options", "baseline"}.isdisjoint(item.fixturenames) or not named.isdisjoint(TRAINS)


@pytest.fixture(scope="session")
def suite() -> PointReach:
    return PointReach(TASKS)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, suite: PointReach) -> EpisodeStore:
    """Episodes of different lengths, recorded in this process."""
    return collect(suite, tmp_path_factory.mktemp("data") / "points", "mixed", episodes=12, workers=0, quiet=True)


@pytest.fixture(scope="session")
def spec(store: EpisodeStore) -> DataSpec:
    """With groups: the first and the last task belong together."""
    return replace(describe_stores([store]), groups=(0, 1, 0))


def options_of(store: EpisodeStore, out: Path) -> dict:
    """Options of a training run that takes a second."""
    return {
        "data": str(store.path),
        "out": str(out),
        "agent.hidden": [16, 16],
        "schedule": {"steps": 30, "log_every": 5, "evaluate_every": 20, "save_every": 10},
        "evaluate_goals": 2,
        "windows": 8,
        "workers": 0,
        "threads": 1,
        "quiet": True,
    }


@pytest.fixture
def train_options(store: EpisodeStore, tmp_path: Path) -> dict:
    """Of a run in the test's own folder."""
    return options_of(store, tmp_path / "run")


@pytest.fixture(scope="session")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict], Run]:
    """Trains what others are compared to, once for every set of options; who resumes one takes a copy."""
    made: dict[str, Run] = {}

    def of(options: dict) -> Run:
        wanted = {name: value for name, value in options.items() if name != "out"}
        key = json.dumps(wanted, sort_keys=True)
        if key not in made:
            made[key] = train(**wanted, out=str(tmp_path_factory.mktemp("baseline") / "run"))
        return made[key]

    return of


@pytest.fixture
def even_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that draw noise draw the same for all tasks, whoever computes which tasks when."""
    monkeypatch.setattr(torch, "randn_like", lambda values: torch.full_like(values, 0.3))
    monkeypatch.setattr(torch, "rand_like", lambda values: torch.full_like(values, 0.8))


def episode(task: str = "a", length: int = 5, seed: int = 0) -> Episode:
    draw = np.random.default_rng(seed)
    flags = np.zeros(length, dtype=bool)
    return Episode(
        task,
        draw.normal(size=(length + 1, 3)).astype(np.float32),
        draw.uniform(-1, 1, (length, 2)).astype(np.float32),
        draw.random(length).astype(np.float32),
        flags | (np.arange(length) == 2),
        flags,
        np.arange(length) == length - 1,
        goal=seed,
        seed=seed,
    )


def write(path: Path, episodes: list[Episode], names: tuple[str, ...] = ("a", "b")) -> EpisodeStore:
    suite = {"class_path": "some.Suite", "init_args": {"tasks": list(names)}}
    StoreWriter(path, suite, names, (3, 2), 9, {"simulator": "1"}, {"recipe": "test"}).write(episodes)
    return EpisodeStore(path)


@pytest.fixture
def small(tmp_path: Path) -> EpisodeStore:
    return write(tmp_path / "small", [episode("a", 5, 0), episode("b", 3, 1), episode("a", 1, 2)])
