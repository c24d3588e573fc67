"""What an evaluation found: its episodes, and success of every task, or its return where there is no success."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.store import SUITE
from mtorl.envs.protocol import EvaluationSettings, Protocol, record_of
from mtorl.envs.task_result import TaskResult
from mtorl.files import read_json, write_json
from mtorl.intervals import mean_interval, mean_rate_interval, wilson_interval
from mtorl.measures import RETURN, SCORE, SUCCESS, Measure, Scale, normalised
from mtorl.schema import (
    Document,
    Flag,
    Integer,
    Kind,
    ListOf,
    MappingOf,
    Names,
    Nullable,
    Number,
    Plain,
    Record,
    Text,
    check,
    check_version,
)

SCHEMA = 1
SOURCE: dict[str, Kind] = {
    "checkpoint": Text(),
    "step": Integer(0),
    "sha256": Text(),
    "act_with": Text(),
    "demonstrations_sha256": Text(),
    "point": ListOf(Number(0, 1)),
}
"""What a report may say of where its policy is from."""
REPORT = Record(
    {
        "schema": Integer(1),
        "policy": Text(),
        "source": Record({}, optional=SOURCE),
        "protocol": record_of(Protocol),
        "suite": SUITE,
        "versions": MappingOf(Plain()),
        "task_names": Names(),
        "episodes": ListOf(
            Record(
                {
                    "task": Text(),
                    "goal": Integer(0),
                    "success": Flag(),
                    "success_last": Nullable(Flag()),
                    "reward": Number(),
                    "length": Integer(1),
                },
                closed=True,
            )
        ),
    },
    optional={
        "mean_success": Number(0, 1),
        "returns_only": ListOf(Text()),
        "return_bounds": MappingOf(ListOf(Number(), 2)),
    },
)
"""What `EvalReport.save` writes."""


class Played(NamedTuple):
    """One episode of an evaluation."""

    task: str
    goal: int
    success: bool
    """At any step."""
    success_last: bool | None
    """At the last step; None if the episode was stopped at its first success."""
    reward: float
    """Undiscounted sum over the episode, until it was stopped."""
    length: int


@dataclass(frozen=True)
class Source:
    """What identifies the policy of an evaluation, and what it was shown; nothing of it is known of every policy.

    Attributes:
        checkpoint: Of a trained run: last, best, or a step.
        step: Training steps behind it.
        sha256: Of the checkpoint.
        act_with: Which policy of an agent that has several, if not the usual one.
        demonstrations_sha256: Of the manifest of the data whose episodes were shown.
        point: Shares of the tasks, between which it was played; None: every task at its own place.
    """

    checkpoint: str | None = None
    step: int | None = None
    sha256: str | None = None
    act_with: str | None = None
    demonstrations_sha256: str | None = None
    point: tuple[float, ...] | None = None

    def plain(self) -> Document:
        """What is known, as plain values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Source":
        """The inverse of `plain`."""
        known = {field.name: content.get(field.name) for field in fields(cls)}
        return cls(**known | {"point": tuple(known["point"]) if known["point"] else None})


@dataclass(frozen=True)
class EvalReport:
    """All episodes of one evaluation.

    Attributes:
        policy: What was evaluated, for headings.
        task_names: In the suite's order.
        episodes: One entry per episode, ordered by task and goal.
        protocol: How they were played.
        suite: Class and arguments of the suite.
        versions: Of the simulator and the goals.
        source: What identifies the policy.
        path: The file that holds it, if there is one.
        returns_only: Names of the tasks without a success flag, which are judged by their returns.
        return_bounds: Of some tasks the returns that count as 0 and as 100 in normalised scores.

    Raises:
        InputError: Of two such returns the first is not the lower one.
    """

    policy: str
    task_names: tuple[str, ...]
    episodes: tuple[Played, ...]
    protocol: Protocol
    suite: dict[str, Any]
    versions: dict[str, str]
    source: Source = Source()
    path: Path | None = field(default=None, compare=False)
    returns_only: tuple[str, ...] = ()
    return_bounds: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for task, ends in self.return_bounds.items():
            if not ends[0] < ends[1]:
                raise InputError(f"the reference returns of {task} are {ends}; expected the lower one first.")

    def tasks(self) -> list[TaskResult]:
        """One row per task, in the suite's order."""
        return list(self._rows)

    @cached_property
    def _rows(self) -> list[TaskResult]:
        return [self._task(name) for name in self.task_names]

    def _task(self, name: str) -> TaskResult:
        mine = self._played.get(name, [])
        successes = sum(episode.success for episode in mine)
        last = [episode.success_last for episode in mine if episode.success_last is not None]
        return TaskResult(
            name,
            len(mine),
            successes,
            *wilson_interval(successes, len(mine)),
            success_last_rate=float(np.mean(last)) if len(last) == len(mine) else None,
            mean_return=float(np.mean([episode.reward for episode in mine])),
            mean_length=float(np.mean([episode.length for episode in mine])),
            return_interval=mean_interval([self.returns(name)]),
            returns_only=name in self.returns_only,
            bounds=self.return_bounds.get(name),
        )

    def returns(self, task: str) -> NDArray[np.float64]:
        """Returns of all episodes of a task."""
        return np.array([episode.reward for episode in self._played.get(task, [])])

    @cached_property
    def _played(self) -> dict[str, list[Played]]:
        """The episodes of each task."""
        found: dict[str, list[Played]] = {}
        for episode in self.episodes:
            found.setdefault(episode.task, []).append(episode)
        return found

    @property
    def goal_hidden(self) -> bool:
        """Whether the policy was not shown the goal."""
        return not self.suite.get("init_args", {}).get("goal_visible", True)

    @property
    def settings(self) -> EvaluationSettings:
        """How it was played."""
        source, visible = self.source, not self.goal_hidden
        return EvaluationSettings(
            self.protocol, source.checkpoint, source.act_with, visible, source.demonstrations_sha256
        )

    @property
    def mean_success(self) -> float:
        """Mean over tasks of the success rates, of those that have one; NaN if none has."""
        mean = self.mean_of(SUCCESS, self.task_names)
        return mean.value if mean else float("nan")

    def mean_interval(self) -> tuple[float, float]:
        """95 % interval of the mean over tasks (see `mean_rate_interval`), of those that have success; NaN if none has.

        It covers which episodes were played, not which seed was trained.
        """
        mean = self.mean_of(SUCCESS, self.task_names)
        return mean.ends if mean else (float("nan"), float("nan"))

    @cached_property
    def scales(self) -> dict[Scale, tuple[TaskResult, ...]]:
        """What the tasks are judged by, and which by that; they are never mixed.

        Success comes first. Tasks without it are judged by normalised scores if all of them have one, and by returns
        otherwise.
        """
        succeed = tuple(row for row in self.tasks() if not row.returns_only)
        others = tuple(row for row in self.tasks() if row.returns_only)
        scale = SCORE if all(row.bounds for row in others) else RETURN
        return {kind: rows for kind, rows in ((SUCCESS, succeed), (scale, others)) if rows}

    @cached_property
    def means(self) -> tuple[Measure, ...]:
        """Means over tasks, of those with success and of those without; the first one judges a policy."""
        return tuple(self._mean(scale, rows) for scale, rows in self.scales.items())

    def mean_of(self, scale: Scale, task_names: Sequence[str]) -> Measure | None:
        """Mean over those of the tasks that are judged by that; None if none of them is."""
        rows = [row for row in self.scales.get(scale, ()) if row.task in task_names]
        return self._mean(scale, rows) if rows else None

    def _mean(self, scale: Scale, rows: Sequence[TaskResult]) -> Measure:
        if scale is SUCCESS:
            interval = mean_rate_interval([row.successes for row in rows], [row.episodes for row in rows])
            return Measure(scale, float(np.mean([row.rate for row in rows])), *interval, len(rows))
        samples = [self.returns(row.task) for row in rows]
        if scale is SCORE:
            samples = [normalised(it, row.bounds) for it, row in zip(samples, rows, strict=True) if row.bounds]
        value = float(np.mean([it.mean() for it in samples]))
        low, high = mean_interval(samples) or (None, None)
        return Measure(scale, value, low, high, len(rows))

    def save(self, path: str | Path) -> None:
        """Writes the report as JSON, atomically."""
        write_json(
            Path(path),
            {
                "schema": SCHEMA,
                "policy": self.policy,
                "source": self.source.plain(),
                **self._unusual(),
                "protocol": asdict(self.protocol),
                "suite": self.suite,
                "versions": self.versions,
                "task_names": list(self.task_names),
                "episodes": [episode._asdict() for episode in self.episodes],
            },
        )

    def _unusual(self) -> Document:
        """The mean of success, where tasks have it, and what is there only where it says something."""
        content: Document = {"mean_success": self.mean_success} if SUCCESS in self.scales else {}
        optional = {"returns_only": list(self.returns_only), "return_bounds": self.return_bounds}
        return content | {name: value for name, value in optional.items() if value}

    @classmethod
    def load(cls, path: str | Path) -> "EvalReport":
        """Reads what `save` wrote.

        Raises:
            InputError: The file is missing, malformed, or of a newer version.
        """
        content = read_json(Path(path), "evaluation report")
        what, remedy = f"evaluation report {path}", "Restore it or evaluate again."
        check_version(content, SCHEMA, what)
        check(content, REPORT, what, remedy)
        report = cls(
            content["policy"],
            tuple(content["task_names"]),
            tuple(Played(**episode) for episode in content["episodes"]),
            Protocol(**content["protocol"]),
            content["suite"],
            content["versions"],
            Source.read(content["source"]),
            Path(path),
            tuple(content.get("returns_only", ())),
            {task: (low, high) for task, (low, high) in content.get("return_bounds", {}).items()},
        )
        counts = Counter(task for task, _ in {(episode.task, episode.goal) for episode in report.episodes})
        expected = dict.fromkeys(report.task_names, report.protocol.goals)
        if counts != expected or len(report.episodes) != sum(expected.values()):
            raise InputError(
                f"{what} is malformed: episodes are of {len(counts)} tasks and {len(report.episodes)} in all; expected "
                f"one for each of {report.protocol.goals} goals of each of {len(expected)} task_names. {remedy}"
            )
        return report
