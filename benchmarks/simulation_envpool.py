"""EnvPool's Meta-World in C++, as a bar for speed and as an oracle for rewards. Used by `simulation.py`."""

import pickle
import time
from typing import Any

import numpy as np
from metaworld.types import Task

from mtorl.envs import MetaWorld
from mtorl.envs.metaworld.simulator import stock_class

ORACLE = (
    "reach-v3",
    "reach-wall-v3",
    "push-v3",
    "push-wall-v3",
    "coffee-push-v3",
    "stick-push-v3",
    "hand-insert-v3",
    "pick-out-of-hole-v3",
    "pick-place-v3",
    "push-back-v3",
    "plate-slide-v3",
    "soccer-v3",
    "sweep-into-v3",
)
"""Tasks of which the first observation says all that their reset drew: ours can begin in the same way."""


def make(name: str, rows: int, **options: Any) -> Any:
    """Environments of one task, stepped by one thread. EnvPool draws their goals itself."""
    import envpool

    words = "".join(word.capitalize() for word in name.removesuffix("-v3").split("-"))
    return envpool.make(f"MetaWorld/{words}-v3", env_type="gymnasium", num_envs=rows, num_threads=1, **options)


def version() -> str | None:
    """EnvPool's version; None where it is not installed or has no Meta-World."""
    try:
        import envpool
    except ImportError:
        return None
    return envpool.__version__ if "MetaWorld/Reach-v3" in envpool.list_all_envs() else None


def seconds(name: str, episodes: np.ndarray) -> float:
    """Time for the same actions `[rows, steps, 4]`, resets excluded."""
    environment = make(name, len(episodes))
    environment.reset()
    start = time.perf_counter()
    for step in range(episodes.shape[1]):
        environment.step(episodes[:, step])
    taken = time.perf_counter() - start
    environment.close()
    return taken


def largest_reward_difference(name: str, steps: int = 60) -> float:
    """Between EnvPool's rewards (single precision) and ours for the same actions from the same beginning."""
    theirs = make(name, 1, seed=3, partially_observable=False)
    first = theirs.reset()[0][0]
    ours = MetaWorld(tasks=[name]).make(0)
    ours.reset(0)
    drawn = np.concatenate((first[4:7], first[36:39]))  # where the object is, and the goal
    content = {"env_cls": stock_class(name), "rand_vec": drawn, "partially_observable": False}
    ours.raw.set_task(Task(env_name=name, data=pickle.dumps(content)))
    ours.raw.reset()
    draw, differences = np.random.default_rng(0), []
    for _ in range(steps):
        action = draw.uniform(-1, 1, 4).astype(np.float32)
        rewards = theirs.step(action[None])[1][0], ours.raw.step(action)[1]
        differences.append(abs(float(rewards[0]) - float(rewards[1])))
    theirs.close()
    return max(differences)
