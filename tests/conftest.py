"""Small real objects that many tests share."""

from pathlib import Path

import pytest

from mtorl.datasets.store import DataSpec, EpisodeStore, describe_stores
from mtorl.envs import PointReach
from mtorl.envs.collect import collect

TASKS = ["towards-0", "towards-2", "away-0"]


@pytest.fixture(scope="session")
def suite() -> PointReach:
    return PointReach(TASKS)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, suite: PointReach) -> EpisodeStore:
    """Episodes of different lengths, recorded in this process."""
    return collect(suite, tmp_path_factory.mktemp("data") / "points", "mixed", episodes=12, workers=0, quiet=True)


@pytest.fixture(scope="session")
def spec(store: EpisodeStore) -> DataSpec:
    return describe_stores([store])


@pytest.fixture
def train_options(store: EpisodeStore, tmp_path: Path) -> dict:
    """Options of a training run that takes a second."""
    return {
        "data": str(store.path),
        "out": str(tmp_path / "run"),
        "agent.hidden": [16, 16],
        "schedule": {"steps": 30, "log_every": 5, "evaluate_every": 20, "save_every": 10},
        "evaluate_goals": 2,
        "windows": 8,
        "workers": 0,
        "threads": 1,
        "quiet": True,
    }
