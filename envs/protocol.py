"""How episodes of an evaluation are played.

| name | goals | episodes |
|---|---|---|
| `official` | the 50 training goals of each task (Meta-World's own protocol) | one each |
| `heldout` | 50 goals that no training episode and no choice of a checkpoint has seen | one each |
| `ml45-like` | the same of tasks that were not trained on (Meta-World: the five test tasks of ML45) | one each |

A policy is told its task, or not (`task_identity`): then it sees observations and rewards alone, or a recorded episode
of the task as well (`demonstrations`). In tasks that were not trained on it is never told.
"""

import os
import shlex
from dataclasses import dataclass, field
from typing import Literal, get_args

from mtorl import InputError
from mtorl.datasets.store import EpisodeStore, sha256
from mtorl.envs.base import ContextMode, Split

ProtocolName = Literal["official", "heldout", "ml45-like"]
TaskVisibility = Literal["shown", "hidden"]


@dataclass(frozen=True)
class Protocol:
    """How episodes are played.

    Attributes:
        name: `official` (training goals), `heldout` (unseen goals) or `ml45-like` (unseen goals of unseen tasks).
        goals: Goals per task, one episode each; the first that many.
        stop_at_success: End an episode at its first success: 5 times faster, but success at the last step is then
            unknown and returns are returns until success.
        seed: Seed of random policies; the tasks themselves are deterministic.
        block: Episodes of one task that a policy sees as one batch.
        task_identity: Whether policies are told the task: shown or hidden.
        demonstrations: Folder of a data set: of each task its best episode is shown to the policy. Agents without use
            for it do not care.
        context: Agents that look at the last K steps do so at each step (exact), or let what they see grow up to K
            steps and then begin again with half of it (anchored): faster, because what was worked out for earlier
            steps is kept, but not the same actions. Other agents do not care.
    """

    name: ProtocolName = "heldout"
    goals: int = 50
    stop_at_success: bool = False
    seed: int = 0
    block: int = 10
    task_identity: TaskVisibility = "shown"
    demonstrations: str | None = field(default=None, compare=False)  # reports hold a hash of what was in it
    context: ContextMode = "exact"

    def __post_init__(self) -> None:
        if self.demonstrations is not None:
            object.__setattr__(self, "demonstrations", os.path.normpath(self.demonstrations))
        if self.unseen_tasks:
            object.__setattr__(self, "task_identity", "hidden")
        if self.name not in get_args(ProtocolName):
            raise InputError(f"unknown protocol {self.name!r}; expected one of {', '.join(get_args(ProtocolName))}.")
        if not (self.goals >= 1 and self.block >= 1 and self.seed >= 0):  # NaN is neither
            raise InputError(
                f"goals is {self.goals}, block {self.block} and seed {self.seed}; expected at least 1, 1 and 0."
            )
        if self.task_identity not in get_args(TaskVisibility):
            raise InputError(f"task_identity is {self.task_identity!r}; expected shown or hidden.")
        if self.context not in get_args(ContextMode):
            raise InputError(f"context is {self.context!r}; expected exact or anchored.")

    @property
    def split(self) -> Split:
        """Which of the suite's goals are played."""
        return "train" if self.name == "official" else "heldout"

    @property
    def unseen_tasks(self) -> bool:
        """Whether a policy plays other tasks than it was trained on."""
        return self.name == "ml45-like"

    @property
    def hides_tasks(self) -> bool:
        """Whether policies are not told the task."""
        return self.task_identity == "hidden"

    @property
    def remarks(self) -> list[str]:
        """What is unusual about it, in words."""
        found = ["stopped at the first success"] if self.stop_at_success else []
        found += ["task not told"] if self.hides_tasks else []
        found += [f"shown an episode of {self.demonstrations}"] if self.demonstrations is not None else []
        found += [f"{self.context} context"] if self.context != "exact" else []
        return found + ([f"seed {self.seed}"] if self.seed else [])

    @property
    def options(self) -> str:
        """The same as options of `mtorl evaluate`."""
        found = f"--protocol {self.name} --goals {self.goals}"
        found += " --stop_at_success true" if self.stop_at_success else ""
        found += " --task_identity hidden" if self.hides_tasks and not self.unseen_tasks else ""
        found += f" --demonstrations {shlex.quote(self.demonstrations)}" if self.demonstrations is not None else ""
        found += f" --context {self.context}" if self.context != "exact" else ""
        return found + (f" --seed {self.seed}" if self.seed else "")


def demonstrations_hash(protocol: Protocol) -> str | None:
    """Identifies the episodes that a protocol shows; None if it shows none."""
    if protocol.demonstrations is None:
        return None
    return sha256(EpisodeStore(protocol.demonstrations).path / "manifest.json")
