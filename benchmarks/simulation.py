"""Steps per second of the simulator: the package's own environment, ours, ours with a policy, and bare physics.

    python benchmarks/simulation.py        # about 5 minutes

The 50 tasks of MT50, ten goals each, the same random actions for all variants, resets excluded, one thread, all in one
run: for each task the variants are timed one after the other, so that they share whatever else the machine is doing.
"""

import pickle
import statistics
import time

import mujoco
import numpy as np
import torch
from common import make_spec, save
from metaworld.types import Task

from mtorl.agents import BehaviorCloning
from mtorl.envs import MetaWorld
from mtorl.envs.base import RolloutContext
from mtorl.envs.metaworld import stored_goals
from mtorl.envs.workers import WorkerPool, cached_environments

STEPS, ROWS, ROUNDS = 200, 10, 5


class Stock:
    """The package's own environment, as its users build it."""

    def __init__(self, name: str) -> None:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        self.name, self.kind = name, ALL_V3_ENVIRONMENTS[name]
        self.raw = self.kind()

    def reset(self, goal: int) -> None:
        """Begins an episode with one of our goals."""
        vector = stored_goals()[self.name][goal]
        content = {"env_cls": self.kind, "rand_vec": vector, "partially_observable": False}
        self.raw.set_task(Task(env_name=self.name, data=pickle.dumps(content)))
        self.raw.reset()


def agent() -> BehaviorCloning:
    """The MLP of the MT10 preset, for 50 tasks, with random weights."""
    spec = make_spec(50)
    return BehaviorCloning(spec).eval().requires_grad_(False)


def time_task(suite: MetaWorld, task: int, policy: BehaviorCloning, actions: np.ndarray) -> dict[str, float]:
    """Seconds of every variant for the same ROWS episodes with the same STEPS / ROWS actions each."""
    seconds = {}
    episodes = actions.reshape(ROWS, STEPS // ROWS, 4)
    stock = Stock(suite.task_names[task])
    seconds["stock"] = seconds["bare mj_step"] = 0.0
    for goal, episode in enumerate(episodes):
        stock.reset(goal)
        start = time.perf_counter()
        for action in episode:
            stock.raw.step(action)
        seconds["stock"] += time.perf_counter() - start

    for goal, episode in enumerate(episodes):
        stock.reset(goal)
        controls = []
        for action in episode:
            stock.raw.step(action)
            controls.append((stock.raw.data.ctrl.copy(), stock.raw.data.mocap_pos.copy()))
        stock.reset(goal)
        for control, mocap in controls:
            stock.raw.data.ctrl[:], stock.raw.data.mocap_pos[:] = control, mocap
            stock.raw.data.mocap_quat[:] = [1, 0, 1, 0]
            start = time.perf_counter()
            mujoco.mj_step(stock.raw.model, stock.raw.data, nstep=5)
            seconds["bare mj_step"] += time.perf_counter() - start

    rows = [suite.make(task) for _ in range(ROWS)]
    for goal, row in enumerate(rows):
        row.reset(goal)
    start = time.perf_counter()
    for step in range(STEPS // ROWS):
        for goal, row in enumerate(rows):
            row.step(episodes[goal, step])
    seconds["ours"] = time.perf_counter() - start

    observations = np.stack([row.reset(goal) for goal, row in enumerate(rows)])
    rewards = np.zeros(ROWS, np.float32)
    policy.reset(RolloutContext(np.full(ROWS, task), np.arange(ROWS)))
    start = time.perf_counter()
    for step in range(STEPS // ROWS):
        policy.act(observations, rewards)
        for goal, row in enumerate(rows):  # the random actions again: the same physics as without the policy
            observations[goal] = row.step(episodes[goal, step]).observation
    seconds["ours with MLP policy"] = time.perf_counter() - start
    return seconds


def step_task(suite: MetaWorld, task: int, steps: int) -> int:
    """Runs in a worker: steps one environment."""
    (environment,) = cached_environments(suite, task, 1)
    draw = np.random.default_rng(task)
    environment.reset(0)
    for _ in range(steps):
        environment.step(draw.uniform(-1, 1, 4).astype(np.float32))
    return steps


def time_workers(suite: MetaWorld, workers: int) -> float:
    """Steps per second of a pool over all tasks, after its environments are built."""
    with WorkerPool(workers) as pool:
        for _ in range(3):  # enough for every worker to have built every task
            list(pool.run(step_task, [(suite, task, 1) for task in range(50)]))
        start = time.perf_counter()
        total = sum(pool.run(step_task, [(suite, task, 400) for task in range(50)]))
        return total / (time.perf_counter() - start)


def main() -> None:
    """Measures everything and writes results/simulation.json."""
    torch.set_num_threads(1)
    suite, policy = MetaWorld("MT50"), agent()
    draw = np.random.default_rng(0)
    rounds = []
    for _ in range(ROUNDS):
        actions = draw.uniform(-1, 1, (STEPS, 4)).astype(np.float32)
        times = [time_task(suite, task, policy, actions) for task in range(50)]
        rounds.append({name: 50 * STEPS / sum(one[name] for one in times) for name in times[0]})
    rates = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    workers: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for count, found in workers.items():
            found.append(time_workers(suite, count))
    pools = {count: statistics.median(found) for count, found in workers.items()}
    save(
        "simulation",
        {
            "tasks": 50,
            "rounds": ROUNDS,
            "steps_per_second": {name: round(rate) for name, rate in rates.items()},
            "ours_over_stock": round(statistics.median(one["ours"] / one["stock"] for one in rounds), 3),
            "ours_over_bare_physics": round(statistics.median(one["ours"] / one["bare mj_step"] for one in rounds), 3),
            "with_policy_over_without": round(
                statistics.median(one["ours with MLP policy"] / one["ours"] for one in rounds), 3
            ),
            "workers_steps_per_second": {str(count): round(rate) for count, rate in pools.items()},
            "two_workers_over_one": round(pools[2] / pools[1], 3),
            "goals": {
                "ours_over_stock": 1.25,
                "ours_over_bare_physics": 0.27,
                "with_policy_over_without": 0.85,
                "two_workers_over_one": 1.7,
            },
        },
    )


if __name__ == "__main__":
    main()
