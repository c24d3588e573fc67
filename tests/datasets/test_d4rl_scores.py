from types import ModuleType

import pytest

from mtorl.datasets.d4rl_scores import BOUNDS, d4rl_bounds
from mtorl.datasets.importers.d4rl_names import package_infos


@pytest.fixture
def infos() -> ModuleType:
    """The table of the d4rl package."""
    found = package_infos()
    if found is None:
        pytest.skip("there is no d4rl package")
    return found


def test_the_table_is_that_of_the_package(infos: ModuleType) -> None:
    assert infos.REF_MIN_SCORE.keys() == infos.REF_MAX_SCORE.keys() and len(infos.REF_MIN_SCORE) > 140
    for name, lowest in infos.REF_MIN_SCORE.items():
        assert d4rl_bounds(name) == (lowest, infos.REF_MAX_SCORE[name]), name
    used = {name for name in BOUNDS if any(known.startswith(f"{name}-") for known in infos.REF_MIN_SCORE)}
    assert used == BOUNDS.keys()


def test_names_of_environments_and_data_sets() -> None:
    for name in ("HalfCheetah", "halfcheetah", "halfcheetah-medium-replay-v2", "HalfCheetah-v5"):
        assert d4rl_bounds(name) == (-280.178953, 12135.0)
    assert d4rl_bounds("maze2d-umaze-dense-v1") != d4rl_bounds("maze2d-umaze-v1") == (23.85, 161.86)
    assert d4rl_bounds("humanoid") is None and d4rl_bounds("hopperlike") is None and d4rl_bounds("maze2d") is None
