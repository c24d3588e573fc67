"""Goals come from a file, 50 for training and 50 held out for every task, fixed by the task's name.

They are the same whatever the benchmark. `python -m mtorl.envs.metaworld PATH` writes the file again.
"""

import pickle
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from mtorl.datasets.store import sha256
from mtorl.envs.metaworld.simulator import load_mujoco

GOALS = 50
SEEDS = {"train": 1, "heldout": 2}
"""The seeds with which the package's MT1 benchmark of each task drew the stored goals."""
GOAL_FILE = files("mtorl.envs.data") / "metaworld_goals.npz"


@cache
def stored_goals() -> dict[str, NDArray[np.float64]]:
    """The package's random vectors for every task, `[100, 3 or 6]`: 50 for training, then 50 held out.

    The keys are all 50 tasks in the order of MT50.
    """
    with GOAL_FILE.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@cache
def goals_hash() -> str:
    """Fingerprint of the file: what makes results of two machines comparable."""
    with as_file(GOAL_FILE) as path:
        return sha256(path)


def draw_goals(name: str) -> NDArray[np.float64]:
    """Draws the 100 goals of one task anew (2 seconds), as `stored_goals` has them.

    Args:
        name: Name of the task.

    Returns:
        `[100, 3 or 6]`, float64.
    """
    load_mujoco()
    import metaworld

    vectors = []
    for seed in SEEDS.values():
        for task in metaworld.MT1(name, seed=seed).train_tasks:
            vectors.append(pickle.loads(task.data)["rand_vec"])  # made in this process, a line above
    return np.array(vectors, dtype=np.float64)


def regenerate_goals(path: str) -> None:
    """Writes the goal file again: `python -m mtorl.envs.metaworld PATH`, about two minutes."""
    load_mujoco()
    from metaworld.env_dict import MT50_V3

    np.savez_compressed(path, allow_pickle=False, **{name: draw_goals(name) for name in MT50_V3})
