"""Plays a policy in every task of a suite and reports success per task.

Success at any step is the official criterion; success at the last step is the second column. Two evaluations of the
same policy give identical reports, whatever the number of workers: an episode is played in a block of fixed size
(finished rows stay in the batch) because another batch size changes last bits of a network's output, and the
simulator amplifies them.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.episode import Demonstration
from mtorl.envs.base import RolloutContext, Suite
from mtorl.envs.checked import CheckedEnv, check_suite, checked_actions
from mtorl.envs.demonstrations import demonstrations
from mtorl.envs.parcel import Parcel, lent, pack
from mtorl.envs.partial import Partial, evaluation_key, refuse_other_policy
from mtorl.envs.policies import Policy, check_positions
from mtorl.envs.protocol import Protocol, demonstrations_hash
from mtorl.envs.results import EvalReport, Played, Source
from mtorl.envs.workers import WorkerPool, cached_environments, cached_suite
from mtorl.progress import Progress


def evaluate(
    policy: Policy,
    suite: Suite,
    protocol: Protocol,
    pool: WorkerPool,
    name: str = "policy",
    out: Path | None = None,
    source: Source | None = None,
    quiet: bool = False,
) -> EvalReport:
    """Plays every task of a suite.

    Args:
        policy: What acts; it is sent to the workers once.
        suite: The tasks that the policy is for.
        protocol: How to play; one for unseen tasks plays `suite.unseen()` instead.
        pool: Workers; they keep their environments between evaluations.
        name: What the report calls the policy.
        out: File for the report. Until it is written, finished episodes are kept beside it (`.partial`), so that an
            interrupted evaluation continues.
        source: Identifies the policy's weights by their `sha256`; other policies are known by their pickled content.
            Only episodes of the same policy, protocol and suite are continued.
        quiet: Show no progress.

    Returns:
        The report; the order of its episodes does not depend on the workers.

    Raises:
        InputError: The suite, what its environments return or the policy's actions are malformed; the policy knows its
            tasks in another order; or `out` holds the report of a policy of another name.
    """
    suite = protocol.plays(suite)
    check_suite(suite)
    if is_told(policy, protocol):
        check_positions(policy, suite.task_names)
    goals = played_goals(suite, protocol)
    shown = demonstrations(protocol, suite, getattr(policy, "demonstration_steps", 1))
    source = replace(source or Source(), demonstrations_sha256=demonstrations_hash(protocol))
    refuse_other_policy(out, name, source)
    packed = pack(policy)
    partial = Partial(
        out, evaluation_key(name, source.plain() if source.sha256 else [source.plain(), packed.token], protocol, suite)
    )
    played = partial.read()
    total = len(suite.task_names) * len(goals)
    with (
        lent(packed, pool) as parcel,
        Progress(f"playing {name}", total, "episodes", start=len(played), quiet=quiet) as progress,
    ):
        blocks = _missing_blocks(suite, goals, protocol.block, played)
        jobs = ((parcel, suite, task, row, protocol, shown[task]) for task, row in blocks)
        for episodes in pool.run(_play_block, jobs):
            played |= {(episode.task, episode.goal): episode for episode in episodes}
            partial.append(episodes)
            progress.advance(len(episodes))
    ordered = tuple(played[task, goal] for task in suite.task_names for goal in goals)
    bounds = {it: suite.return_bounds(task) for task, it in enumerate(suite.task_names)}
    report = EvalReport(
        name,
        suite.task_names,
        ordered,
        protocol,
        suite.describe(),
        suite.versions(),
        source,
        out,
        returns_only=suite.returns_only,
        return_bounds={it: ends for it, ends in bounds.items() if ends},
    )
    if out:
        refuse_other_policy(out, name, source)  # it may have been played meanwhile
        report.save(out)
        partial.remove()
    return report


def is_told(policy: Policy, protocol: Protocol) -> bool:
    """Whether a policy knows its task when it plays."""
    return not protocol.hides_tasks or getattr(policy, "knows_task", False)


def played_goals(suite: Suite, protocol: Protocol) -> range:
    """The goals of every task.

    Raises:
        InputError: The protocol has not so many.
    """
    goals = suite.goals(protocol.split)
    if protocol.goals > len(goals):
        raise InputError(f"protocol {protocol.name} has {len(goals)} goals per task; found goals={protocol.goals}.")
    return goals[: protocol.goals]


def blocks_of(goals: range, size: int) -> list[list[int]]:
    """The goals that are played side by side."""
    return [list(goals[start : start + size]) for start in range(0, len(goals), size)]


def _missing_blocks(
    suite: Suite, goals: range, size: int, played: dict[tuple[str, int], Played]
) -> list[tuple[int, list[int]]]:
    """Task and goals of each block of which an episode is still to be played."""
    return [
        (task, row)
        for task, name in enumerate(suite.task_names)
        for row in blocks_of(goals, size)
        if any((name, goal) not in played for goal in row)
    ]


def _play_block(
    parcel: Parcel,
    suite: Suite,
    task: int,
    goals: list[int],
    protocol: Protocol,
    demonstration: Demonstration | None,
) -> list[Played]:
    suite = cached_suite(suite)
    environments = cached_environments(suite, task, len(goals))
    return play_block(parcel.unpack(), suite, environments, task, goals, protocol, demonstration)


def play_block(
    policy: Policy,
    suite: Suite,
    environments: Sequence[Any],
    task: int,
    goals: Sequence[int],
    protocol: Protocol,
    demonstration: Demonstration | None = None,
) -> list[Played]:
    """Plays a block of episodes of one task side by side.

    Args:
        policy: What acts.
        suite: The suite.
        environments: One per goal.
        task: Position of the task.
        goals: One per row; fewer than `protocol.block` are filled up with rows that are never stepped.
        protocol: How to play.
        demonstration: A recorded episode of the task, if the policy is shown one.
    """
    rows = len(goals)
    size = max(protocol.block, rows)
    rows_of = [*goals, *[goals[-1]] * (size - rows)]
    policy.reset(_context(policy, protocol, suite, task, rows_of, demonstration))
    environments = [CheckedEnv(environment, suite, task) for environment in environments]
    full = np.zeros((size, suite.observation_dim), dtype=np.float32)
    for row, (environment, goal) in enumerate(zip(environments, goals, strict=True)):
        full[row] = environment.reset(goal)
    rewards = np.zeros(size, dtype=np.float32)
    returns, lengths = np.zeros(rows), np.zeros(rows, dtype=int)
    succeeded, last = np.zeros(rows, dtype=bool), np.zeros(rows, dtype=bool)
    running: NDArray[np.bool_] = np.ones(rows, dtype=bool)
    privileged = getattr(policy, "privileged", False)
    own = suite.of(task)
    for _ in range(own.horizon):
        seen = full.copy()  # policies may keep what they are given, or write to it
        actions = policy.act(seen if privileged else own.observe(seen), rewards.copy())
        actions = checked_actions(actions, (size, suite.action_dim), running, suite.task_names[task])
        for row in np.flatnonzero(running).tolist():
            full[row], reward, success, over = environments[row].step(actions[row])
            rewards[row] = reward
            returns[row] += reward
            lengths[row] += 1
            last[row] = success
            succeeded[row] |= success
            if over or (success and protocol.stop_at_success):
                running[row] = False
        if not running.any():
            break
    at_end = [None] * rows if protocol.stop_at_success else last.tolist()
    columns = zip(goals, succeeded.tolist(), at_end, returns.tolist(), lengths.tolist(), strict=True)
    return [Played(suite.task_names[task], int(goal), *rest) for goal, *rest in columns]


def _context(
    policy: Policy,
    protocol: Protocol,
    suite: Suite,
    task: int,
    goals: Sequence[int],
    demonstration: Demonstration | None,
) -> RolloutContext:
    tasks = np.full(len(goals), task) if is_told(policy, protocol) else None
    sizes = suite.dimensions_of(task)
    return RolloutContext(tasks, np.array(goals), protocol.seed, demonstration, protocol.context, dimensions=sizes)
