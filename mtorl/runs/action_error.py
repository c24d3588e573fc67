"""How far a policy's actions are from recorded ones: no simulator, and less noise than success rates."""

import numpy as np

from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext
from mtorl.envs.checked import checked_actions
from mtorl.envs.policies import Policy, check_positions

BLOCK = 50
"""Episodes that are replayed side by side."""


def action_errors(policy: Policy, store: EpisodeStore, task_names: tuple[str, ...]) -> dict[str, float]:
    """Mean squared difference to the recorded actions, per task.

    The policy is shown recorded observations and rewards in their order, as if it were acting. Where past actions are
    part of its input, it sees its own: what it would do when playing.

    Args:
        policy: What acts.
        store: Recorded episodes of all these tasks.
        task_names: The policy's tasks.

    Returns:
        The mean over all recorded steps and action dimensions, by the task's name.

    Raises:
        InputError: The policy knows other tasks or another order, or its actions are malformed.
    """
    check_positions(policy, task_names)
    return {name: _task_error(policy, store, name, number) for number, name in enumerate(task_names)}


def _task_error(policy: Policy, store: EpisodeStore, name: str, number: int) -> float:
    mine = np.flatnonzero(store.index["task"] == store.task_names.index(name))
    total, steps = 0.0, 0
    for start in range(0, len(mine), BLOCK):
        episodes = [store.episode(int(it)) for it in mine[start : start + BLOCK]]
        goals = np.array([episode.goal for episode in episodes])
        policy.reset(RolloutContext(np.full(len(episodes), number), goals))
        rewards = np.zeros(len(episodes), dtype=np.float32)
        for step in range(max(map(len, episodes))):
            rows = [min(step, len(episode) - 1) for episode in episodes]  # episodes that are over stand still
            seen = np.stack([episode.observations[row] for episode, row in zip(episodes, rows, strict=True)])
            recorded = np.stack([episode.actions[row] for episode, row in zip(episodes, rows, strict=True)])
            running = np.array([step < len(episode) for episode in episodes])
            actions = checked_actions(policy.act(seen, rewards), recorded.shape, running, name)
            errors = np.square(actions.astype(float) - recorded).mean(1)
            total += float(errors[running].sum())
            steps += int(running.sum())
            rewards = np.array([episode.rewards[row] for episode, row in zip(episodes, rows, strict=True)])
    return total / steps
