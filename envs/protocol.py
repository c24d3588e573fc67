"""How episodes of an evaluation are played.

| name | goals | episodes |
|---|---|---|
| `official` | the 50 training goals of each task (Meta-World's own protocol) | one each |
| `heldout` | 50 goals that no training episode and no choice of a checkpoint has seen | one each |
| `ml45-like` | the same of tasks that were not trained on, `Suite.unseen` | one each |

Unseen are in Meta-World the five test tasks of ML45, which gave the protocol its name; in `CheetahVel` and `AntDir`
five of the literature's; in `PointReach` all that are not in the suite.

A policy is told its task, or not (`task_identity`): then it sees observations and rewards alone, or a recorded episode
of the task as well (`demonstrations`). In tasks that were not trained on it is never told.
"""

import os
from dataclasses import dataclass, field, fields
from operator import neg
from typing import Any, Literal, get_args

from mtorl import InputError, checks
from mtorl.datasets.store import EpisodeStore, sha256
from mtorl.envs.base import ContextMode, Split, Suite
from mtorl.envs.spelling import Option, command_line, options_of, ranked, remarks, spelled, spellings
from mtorl.schema import Flag, Integer, Nullable, Record, Text

ProtocolName = Literal["official", "heldout", "ml45-like"]
TaskVisibility = Literal["shown", "hidden"]


@dataclass(frozen=True)
class Protocol:
    """How episodes are played. What is said of an option here is its help on the command line.

    Tasks are deterministic. Agents without use for demonstrations or a context do not care for them. A context that is
    anchored is faster because what was worked out for earlier steps is kept.

    Attributes:
        name: official (training goals), heldout (unseen goals) or ml45-like (unseen goals of unseen tasks).
        goals: Goals per task; the first that many.
        stop_at_success: End episodes at their first success: faster, but success at the last step is unknown.
        seed: Seed of random actions.
        block: Episodes of one task that a policy sees as one batch.
        task_identity: Tell the policy which task it is in (shown), or not (hidden).
        demonstrations: A data set whose best episode of each task is shown to the policy: for prompts, and to find the
            group of a task whose identity is hidden.
        context: Agents that look at the last K steps do so at each step (exact), or begin again with half of them
            whenever they have seen K (anchored): faster, but not the same actions.
    """

    name: ProtocolName = field(
        default="heldout",
        metadata=spelled(Text(get_args(ProtocolName)), always=True, word="{}", argument="protocol", rank=0),
    )
    goals: int = field(default=50, metadata=spelled(Integer(1), always=True, rank=7, order=neg))
    stop_at_success: bool = field(
        default=False, metadata=spelled(Flag(), remark="stopped at the first success", word="stopped", rank=6)
    )
    seed: int = field(default=0, metadata=spelled(Integer(0), remark="seed {}", word="seed{}", place=1, rank=8))
    block: int = field(default=10, metadata=spelled(Integer(1), argument=False))
    task_identity: TaskVisibility = field(
        default="shown",
        metadata=spelled(
            Text(get_args(TaskVisibility)),
            remark="task not told",
            word="task-hidden",
            rank=3,
            order=lambda value: value == "hidden",
            of_agents=True,
        ),
    )
    demonstrations: str | None = field(
        default=None,
        compare=False,  # reports hold a hash of what was in it
        metadata=spelled(Nullable(Text()), remark="shown an episode of {}", of_agents=True),
    )
    context: ContextMode = field(
        default="exact",
        metadata=spelled(Text(get_args(ContextMode)), remark="{} context", word="{}", rank=5, of_agents=True),
    )

    def __post_init__(self) -> None:
        if self.demonstrations is not None:
            object.__setattr__(self, "demonstrations", os.path.normpath(self.demonstrations))
        if self.unseen_tasks:
            object.__setattr__(self, "task_identity", "hidden")
        if self.name not in get_args(ProtocolName):
            raise InputError(f"unknown protocol {self.name!r}; expected one of {', '.join(get_args(ProtocolName))}.")
        checks.at_least(1, goals=self.goals, block=self.block)
        checks.at_least(0, seed=self.seed)
        checks.one_of("task_identity", self.task_identity, TaskVisibility)
        checks.one_of("context", self.context, ContextMode)

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

    def plays(self, suite: Suite) -> Suite:
        """What a policy for that suite plays: the suite, or the tasks that do not belong to it."""
        return suite.unseen() if self.unseen_tasks else suite

    @property
    def chosen(self) -> list[Option]:
        """Its options with their values, and how they are spelled."""
        implied = ("task_identity",) if self.unseen_tasks else ()  # by the protocol's name
        return [it.implied() if it.name in implied else it for it in options_of(self)]

    @property
    def remarks(self) -> list[str]:
        """What is unusual about it, in words."""
        return remarks(self.chosen)

    @property
    def options(self) -> str:
        """The same as options of `mtorl evaluate`."""
        return command_line(self.chosen)


@dataclass(frozen=True)
class EvaluationSettings:
    """How an evaluation is to be played, or was: all that tells it from others of the same run.

    Attributes:
        protocol: How episodes are played.
        checkpoint: Of a run: last, best, or a step.
        act_with: Which policy of an agent that has several, if another than its configuration says.
        goal_visible: Whether the goal's position is shown; None: as in the run's data.
        shown: Hash of the data set whose episodes are shown.
    """

    protocol: Protocol
    checkpoint: str | None = field(default=None, metadata=spelled(word="{}", place=2, rank=1))
    act_with: str | None = field(default=None, metadata=spelled(remark="played by {}", word="{}", place=3, rank=2))
    goal_visible: bool | None = field(
        default=None,
        metadata=spelled(
            remark={False: "goal hidden"},
            word={True: "goal-visible", False: "goal-hidden"},
            argument=False,  # pages leave that to the data
            place=1,
            rank=2,
            order=lambda value: value is False,
        ),
    )
    shown: str | None = field(default=None, metadata=spelled(word="shown-{:.8}", argument=False, rank=4))

    @classmethod
    def asked(
        cls,
        protocol: Protocol,
        checkpoint: str = "last",
        act_with: str | None = None,
        goal_visible: bool | None = None,
    ) -> "EvaluationSettings":
        """Those of an evaluation that is to be played: looks up which data set is shown.

        Raises:
            InputError: There is none.
        """
        return cls(protocol, checkpoint, act_with, goal_visible, demonstrations_hash(protocol))

    @property
    def chosen(self) -> list[Option]:
        """All options with their values, and how they are spelled."""
        return [*self.protocol.chosen, *options_of(self)]

    @property
    def label(self) -> str:
        """Tells it from others, in words."""
        return ", ".join([f"{self.protocol.goals} goals", *remarks(self.chosen)])

    @property
    def key(self) -> str:
        """Tells it from others in the name of a file, so that a quick look overwrites nothing."""
        words = [it.text(it.spelling.word) for it in ranked(self.chosen)]
        return "-".join([*filter(None, words), str(self.protocol.goals)])

    @property
    def options(self) -> str:
        """As options of `mtorl evaluate`; whether the goal is visible is left to the data."""
        return command_line(self.chosen)

    @property
    def preference(self) -> tuple[Any, ...]:
        """The same for evaluations with the same settings; of several, the one with the smallest is shown."""
        return tuple(it.spelling.order(it.value) for it in ranked(self.chosen))

    def differences(self, other: "EvaluationSettings", reference: bool = False) -> list[str]:
        """What stands between two evaluations that are to be compared, in a word each.

        Checkpoints and policies of runs may differ; whether the goal is visible is a setting of the suite.

        Args:
            other: The other one.
            reference: Whether one is of the expert or random actions: they are always told, and shown nothing.
        """
        ours, theirs = self._compared(reference), other._compared(reference)
        return [name for name, value in ours.items() if value != theirs[name]]

    def _compared(self, reference: bool) -> dict[str, Any]:
        of_agents = {name for name, it in spellings(self.protocol).items() if it.of_agents}
        names = {it.name for it in fields(self.protocol) if it.compare} - (of_agents if reference else set())
        protocol = {name: getattr(self.protocol, name) for name in names}
        return {"protocol": protocol, "demonstrations": None if reference else self.shown}


def record_of(kind: type[Protocol]) -> Record:
    """What reports hold of a protocol; options that came later than `name` and `goals` are optional."""
    kinds = {name: it.kind for name, it in spellings(kind).items() if it.kind}
    return Record({name: kinds.pop(name) for name in ("name", "goals")}, optional=kinds, closed=True)


def demonstrations_hash(protocol: Protocol) -> str | None:
    """Identifies the episodes that a protocol shows; None if it shows none."""
    if protocol.demonstrations is None:
        return None
    return sha256(EpisodeStore(protocol.demonstrations).path / "manifest.json")
