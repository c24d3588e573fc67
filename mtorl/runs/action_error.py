"""How far a policy's actions are from recorded ones: no simulator, and less noise than success rates."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext
from mtorl.envs.checked import checked_actions
from mtorl.envs.policies import Policy, check_positions
from mtorl.envs.results import Source
from mtorl.files import read_json, write_json
from mtorl.schema import MappingOf, Number, Plain, Record, Text, check

ACTION_ERRORS = Record(
    {
        "policy": Text(),
        "source": MappingOf(Plain()),
        "data": Record({"path": Text(), "sha256": Text()}),
        "mean_error": Number(0),
        "tasks": MappingOf(Number(0)),
    }
)
BLOCK = 50
"""Episodes that are replayed side by side."""


@dataclass(frozen=True)
class ActionErrors:
    """How far a policy's actions are from those of a data set.

    Attributes:
        policy: What was compared, for headings.
        source: What identifies it.
        data: Folder of the data set.
        data_sha256: Of its manifest.
        tasks: Mean squared difference, by the task's name.
    """

    policy: str
    source: Source
    data: str
    data_sha256: str
    tasks: dict[str, float]

    @property
    def mean_error(self) -> float:
        """Mean of the tasks."""
        return sum(self.tasks.values()) / len(self.tasks)

    def save(self, path: Path) -> None:
        """Writes them as JSON, atomically."""
        write_json(
            path,
            {
                "policy": self.policy,
                "source": self.source.plain(),
                "data": {"path": self.data, "sha256": self.data_sha256},
                "mean_error": self.mean_error,
                "tasks": self.tasks,
            },
        )

    @classmethod
    def load(cls, path: Path) -> "ActionErrors":
        """Reads what `save` wrote.

        Raises:
            InputError: The file is missing or malformed.
        """
        content = read_json(path, "action errors")
        check(content, ACTION_ERRORS, f"action errors {path}", "Delete it; they are computed again.")
        source, data = Source.read(content["source"]), content["data"]
        return cls(content["policy"], source, data["path"], data["sha256"], content["tasks"])


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
    total, steps, size = 0.0, 0, store.dimensions_of(name)[1]
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
            errors = np.square(actions.astype(float) - recorded)[:, :size].mean(1)
            total += float(errors[running].sum())
            steps += int(running.sum())
            rewards = np.array([episode.rewards[row] for episode, row in zip(episodes, rows, strict=True)])
    return total / steps
