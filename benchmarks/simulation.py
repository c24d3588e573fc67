"""Steps per second of the simulator: the package's own environment, ours, ours with a policy, and bare physics.

    python benchmarks/simulation.py        # about 8 minutes

The 50 tasks of MT50, ten goals each, the same random actions for all variants, resets excluded, one thread, all in one
run: for each task the variants are timed one after the other, so that they share whatever else the machine is doing.
The policy acts for blocks of ten episodes, as in an evaluation. Where EnvPool is installed (the
extra `bench`) its Meta-World in C++ is timed as well, and its rewards are compared with ours where both can begin in
the same state. That ours are the package's, bit for bit, is what `benchmarks/simulation_bits.py` shows.
"""

import argparse
import statistics
import time
from typing import Any

import mujoco
import numpy as np
import simulation_envpool
import torch
from common import make_spec, save
from simulation_bits import Stock

from mtorl.agents import BehaviorCloning
from mtorl.envs import MetaWorld
from mtorl.envs.base import Env, RolloutContext
from mtorl.envs.workers import WorkerPool, cached_environments

STEPS, ROWS, ROUNDS = 500, 10, 3
ENVPOOL = simulation_envpool.version()


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

    seconds["ours with MLP policy"] = time_policy(rows, task, policy, episodes)
    if ENVPOOL:
        seconds["EnvPool"] = simulation_envpool.seconds(suite.task_names[task], episodes)
    return seconds


def time_policy(rows: list[Env], task: int, policy: BehaviorCloning, episodes: np.ndarray) -> float:
    """Seconds for these actions `[rows, steps, 4]` in one block for which the policy acts, in vain."""
    observations = np.stack([row.reset(goal) for goal, row in enumerate(rows)])
    rewards = np.zeros(len(rows), np.float32)
    policy.reset(RolloutContext(np.full(len(rows), task), np.arange(len(rows))))
    start = time.perf_counter()
    for step in range(episodes.shape[1]):
        policy.act(observations, rewards)
        for goal, row in enumerate(rows):  # the random actions again: the same physics as without the policy
            observations[goal] = row.step(episodes[goal, step]).observation
    return time.perf_counter() - start


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
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--every", type=int, default=1, help="only every n-th task, one round, nothing written: a trial"
    )
    every = parser.parse_args().every
    torch.set_num_threads(1)
    suite, policy = MetaWorld("MT50"), agent()
    draw = np.random.default_rng(0)
    rounds = []
    for _ in range(ROUNDS if every == 1 else 1):
        actions = draw.uniform(-1, 1, (STEPS, 4)).astype(np.float32)
        times = [time_task(suite, task, policy, actions) for task in range(0, 50, every)]
        rounds.append({name: len(times) * STEPS / sum(one[name] for one in times) for name in times[0]})
    rates = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    if every > 1:
        print({name: round(rate) for name, rate in rates.items()})
        return
    workers: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for count, found in workers.items():
            found.append(time_workers(suite, count))
    pools = {count: statistics.median(found) for count, found in workers.items()}

    def ratio(one: str, other: str) -> float:
        return round(statistics.median(rate[one] / rate[other] for rate in rounds), 3)

    save(
        "simulation",
        {
            "tasks": 50,
            "rounds": ROUNDS,
            "steps_per_second": {name: round(rate) for name, rate in rates.items()},
            "ours_over_stock": ratio("ours", "stock"),
            "ours_over_bare_physics": ratio("ours", "bare mj_step"),
            "with_policy_over_without": ratio("ours with MLP policy", "ours"),
            "workers_steps_per_second": {str(count): round(rate) for count, rate in pools.items()},
            "two_workers_over_one": round(pools[2] / pools[1], 3),
            **(envpool(ratio("EnvPool", "bare mj_step")) if ENVPOOL else {}),
            "goals": {
                "ours_over_stock": 1.9,
                "ours_over_bare_physics": 0.45,
                "with_policy_over_without": 0.85,
                "two_workers_over_one": 1.7,
            },
        },
    )


def envpool(over_bare_physics: float) -> dict[str, Any]:
    """What is written about EnvPool."""
    differences = {name: simulation_envpool.largest_reward_difference(name) for name in simulation_envpool.ORACLE}
    return {
        "envpool": ENVPOOL,
        "envpool_over_bare_physics": over_bare_physics,
        "envpool_largest_reward_differences": differences,
    }


if __name__ == "__main__":
    main()
