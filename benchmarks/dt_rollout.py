"""Cost of acting with the decision transformer: per control step of a block of episodes, on one thread.

    python benchmarks/dt_rollout.py        # half a minute

Against it: the same network with its last block computed for every token, and one forward pass per episode.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from common import make_spec, save

from mtorl.agents import DecisionTransformer
from mtorl.envs.base import RolloutContext

TASKS, ROWS, STEPS = 10, 10, 100


def make_agent(last_only: bool) -> DecisionTransformer:
    """The MT10 preset with random weights."""
    spec = make_spec(TASKS)
    torch.manual_seed(0)
    agent = DecisionTransformer(spec).eval().requires_grad_(False)
    if not last_only:
        whole = agent.backbone.forward
        agent.backbone.forward = lambda tokens, _, gains: whole(tokens, False, gains)[:, -1:]  # type: ignore
    return agent


def play(agents: list[DecisionTransformer], rows: int) -> float:
    """Seconds per control step; every agent plays `rows` episodes."""
    draw = np.random.default_rng(0)
    observations = draw.normal(size=(STEPS, rows, 39)).astype(np.float32)
    rewards = np.zeros(rows, np.float32)
    for agent in agents:
        agent.reset(RolloutContext(np.zeros(rows, dtype=np.int64), np.arange(rows)))
    start = time.perf_counter()
    for row in observations:
        for agent in agents:
            agent.act(row, rewards)
    return (time.perf_counter() - start) / STEPS


def main() -> None:
    """Measures all variants in turn and writes results/dt_rollout.json."""
    torch.set_num_threads(1)
    variants: dict[str, Callable[[], float]] = {
        "one pass, last block for the newest token": lambda: play([make_agent(True)], ROWS),
        "one pass, last block for every token": lambda: play([make_agent(False)], ROWS),
        "one pass per episode": lambda: play([make_agent(True) for _ in range(ROWS)], 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(7):
        for name, measure in variants.items():
            seconds[name].append(measure())
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    first = next(iter(medians.values()))
    save(
        "dt_rollout",
        {
            "episodes": ROWS,
            "ms_per_step_of_all_episodes": {name: round(1000 * value, 3) for name, value in medians.items()},
            "ratio_to_ours": {name: round(value / first, 2) for name, value in medians.items()},
        },
    )


if __name__ == "__main__":
    main()
