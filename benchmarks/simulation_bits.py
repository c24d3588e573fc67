"""Are the fast environments the package's own, bit for bit? All 50 tasks, whole episodes.

    python benchmarks/simulation_bits.py        # about 4 minutes

Every task is played for 500 steps with three goals, once by its noisy scripted expert and once at random, in both
environments side by side: raw observations (double precision), rewards, ends and every entry of `info` must be equal.
Goals of one task are played in turns, as in a block of an evaluation, on the model that they share. The result is
what differed, which should be nothing, and which rewards, contacts and successes were met on the way.
"""

import argparse
import pickle
import time
from typing import Any

import numpy as np
from common import save
from metaworld.env_dict import ALL_V3_ENVIRONMENTS
from metaworld.types import Task

from mtorl.envs import MetaWorld
from mtorl.envs.metaworld import TESTED_VERSIONS, stored_goals

GOALS, STEPS = (0, 27, 83), 500


class Stock:
    """The package's own environment, as its users build it."""

    def __init__(self, name: str) -> None:
        self.name, self.kind = name, ALL_V3_ENVIRONMENTS[name]
        self.raw = self.kind()

    def reset(self, goal: int) -> Any:
        """Begins an episode with one of our goals."""
        vector = stored_goals()[self.name][goal]
        content = {"env_cls": self.kind, "rand_vec": vector, "partially_observable": False}
        self.raw.set_task(Task(env_name=self.name, data=pickle.dumps(content)))
        return self.raw.reset()[0]


def compare(suite: MetaWorld, task: int, expert: bool, steps: int) -> dict[str, int]:
    """Plays one task's goals in both environments; counts what was compared, and what differed."""
    name, draw = suite.task_names[task], np.random.default_rng([task, expert])
    policy = suite.expert(task)
    ours, theirs = [suite.make(task) for _ in GOALS], [Stock(name) for _ in GOALS]
    seen = [environment.reset(goal) for environment, goal in zip(ours, GOALS, strict=True)]
    counts = dict.fromkeys(("steps", "differences", "rewarded", "grasps", "successes"), 0)
    for row, stock in enumerate(theirs):
        counts["differences"] += not same(stock.reset(GOALS[row]).astype(np.float32), seen[row])
    for _ in range(steps):
        for row, stock in enumerate(theirs):
            action = policy(seen[row]) + draw.normal(0, 0.1, 4) if expert else draw.uniform(-1.2, 1.2, 4)
            action = np.clip(action, -1, 1).astype(np.float32)
            one, other = raw_step(ours[row], action), stock.raw.step(action)
            seen[row] = one[0].astype(np.float32)
            counts["steps"] += 1
            counts["differences"] += not all(map(same, one, other))
            counts["rewarded"] += bool(one[1] > 1)
            counts["grasps"] += bool(one[4]["grasp_success"])
            counts["successes"] += bool(one[4]["success"])
    return counts


def raw_step(environment: Any, action: np.ndarray) -> tuple[Any, ...]:
    """A step of ours, with all that the package's step returns."""
    found: list[tuple[Any, ...]] = []
    step = environment.raw.step
    environment.raw.step = lambda action: found.append(step(action)) or found[0]
    environment.step(action)
    del environment.raw.step
    return found[0]


def same(one: Any, other: Any) -> bool:
    """Whether two values have the same bits; of numbers, their value and the sign of zero."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return np.asarray(one, np.float64).tobytes() == np.asarray(other, np.float64).tobytes()


def main() -> None:
    """Compares everything and writes results/simulation_bits.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--every", type=int, default=1, help="only every n-th task")
    options = parser.parse_args()
    suite, start = MetaWorld("MT50"), time.process_time()
    assert suite.fast, f"the speed-ups are off; install {TESTED_VERSIONS}"
    found = {}
    for task in range(0, 50, options.every):
        for expert in (True, False):
            counts = compare(suite, task, expert, options.steps)
            found[f"{suite.task_names[task]}, {'expert' if expert else 'random'}"] = counts
            print(suite.task_names[task], "expert" if expert else "random", counts, flush=True)
    total = {key: sum(counts[key] for counts in found.values()) for key in next(iter(found.values()))}
    if options.every == 1 and options.steps == STEPS:
        different = [name for name, counts in found.items() if counts["differences"]]
        seconds = round(time.process_time() - start)
        save("simulation_bits", {"tasks": 50, "goals": len(GOALS), **total, "different": different, "seconds": seconds})
    assert not total["differences"], total


if __name__ == "__main__":
    main()
