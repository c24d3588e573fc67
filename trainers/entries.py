"""What a line of a run's log can say."""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from mtorl.envs.results import EvalReport
from mtorl.measures import SCALES, SUCCESS, Scale
from mtorl.schema import Document, Integer, Kind, ListOf, MappingOf, Names, Number, Record, Text

LINE = Record({"kind": Text(), "step": Integer(0)})
"""What every line holds."""
NAMED = MappingOf(Number())
Matrix = list[list[float]]


@dataclass(frozen=True)
class Entry:
    """One line. Attributes are its keys; those of `numbers` stand beside them.

    Attributes:
        kind: What the line is about.
        schema: What a line of this kind must hold.
        step: Training steps that were finished; of what is looked at within a step, its number.
    """

    kind: ClassVar[str]
    schema: ClassVar[Kind] = LINE
    step: int

    def plain(self) -> Document:
        """The line as plain values."""
        content: dict[str, Any] = {"kind": self.kind}
        for it in fields(self):
            value = getattr(self, it.name)
            content |= value if it.name == "numbers" else {it.name: value}
        return content

    @classmethod
    def read(cls: "type[E]", content: Document) -> "E":
        """The inverse of `plain`, of a line that fits the schema."""
        own: dict[str, Any] = {it.name: content[it.name] for it in fields(cls) if it.name in content}
        rest = {key: value for key, value in content.items() if key not in own and key not in ("kind", "time")}
        if "numbers" in cls.__dataclass_fields__:
            own["numbers"] = rest
        return cls(**own)


E = TypeVar("E", bound=Entry)


@dataclass(frozen=True)
class TrainingEntry(Entry):
    """Means of the moves since the last one.

    Attributes:
        loss: Of the policy, mean of the tasks.
        numbers: `PHASE/loss/TASK`, `PHASE/weight/TASK`, `PHASE/moves` and what balancers and optimizers say.
        steps_per_second: Of training alone.
    """

    kind = "training"
    schema = Record({"loss": Number(), "steps_per_second": Number(0)})
    loss: float
    numbers: dict[str, float]
    steps_per_second: float

    def weights(self) -> list[float]:
        """The weights of all tasks in all phases."""
        return [value for key, value in self.numbers.items() if "/weight/" in key]

    def moves(self) -> float:
        """Optimizer steps in a training step, all phases together; logs of earlier versions do not say: 1."""
        return sum(value for key, value in self.numbers.items() if key.endswith("/moves")) or 1.0


@dataclass(frozen=True)
class EvaluationEntry(Entry):
    """Success on training goals, by the task's name, and its mean; of tasks without it, their returns.

    Attributes:
        mean_success: Of the tasks that have it; None if none has.
        success: By the task's name.
        returns: Mean return of each task without success.
        mean: What those tasks are judged by all together: `return` or `normalised score`, with its mean over them.
    """

    kind = "evaluation on training goals"
    schema = Record(
        {},
        optional={
            "mean_success": Number(0, 1),
            "success": NAMED,
            "returns": NAMED,
            "mean": Record({}, optional=dict.fromkeys(SCALES, Number()), closed=True),
        },
    )
    mean_success: float | None = None
    success: dict[str, float] = field(default_factory=dict)
    returns: dict[str, float] = field(default_factory=dict)
    mean: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, step: int, report: EvalReport) -> "EvaluationEntry":
        """What an evaluation found."""
        rows, means = report.tasks(), {it.scale: it.value for it in report.means}
        return cls(
            step,
            means.pop(SUCCESS, None),
            {row.task: row.rate for row in rows if not row.returns_only},
            {row.task: row.mean_return for row in rows if row.returns_only},
            {scale.name: value for scale, value in means.items()},
        )

    def plain(self) -> Document:
        """The line as plain values, without what does not exist."""
        return {name: value for name, value in super().plain().items() if value not in (None, {})}

    @property
    def judged(self) -> dict[Scale, float]:
        """What the tasks are judged by, success first; means over those that are judged alike."""
        first = {} if self.mean_success is None else {SUCCESS: self.mean_success}
        return first | {SCALES[name]: value for name, value in self.mean.items()}


@dataclass(frozen=True)
class ConflictsEntry(Entry):
    """How the gradients of a batch's tasks stand to each other; see `monitor.conflicts`."""

    kind = "conflicts"
    schema = Record(
        {
            "phase": Text(),
            "tasks": Names("T"),
            "negative_pairs": Number(0, 1),
            "mean_cosine": Number(-1, 1),
            "norm": NAMED,
            "cosines": ListOf(ListOf(Number(-1, 1), "T"), "T"),
        }
    )
    phase: str
    tasks: list[str]
    negative_pairs: float
    mean_cosine: float
    norm: dict[str, float]
    cosines: Matrix


@dataclass(frozen=True)
class RoutingEntry(Entry):
    """How tasks mix modules; see `monitor.routing`. `numbers` holds the probabilities of each layer."""

    kind = "routing"
    schema = Record({"tasks": Names("T"), "entropy": NAMED, "distances": ListOf(ListOf(Number(), "T"), "T")})
    tasks: list[str]
    entropy: dict[str, float]
    distances: Matrix
    numbers: dict[str, Matrix]


@dataclass(frozen=True)
class RelationsEntry(Entry):
    """What tasks take from each other's heads; see `monitor.relations`."""

    kind = "relations"
    schema = Record({"tasks": Names("T"), "weights": ListOf(ListOf(Number(0, 1), "T"), "T"), "deviation": NAMED})
    tasks: list[str]
    weights: Matrix
    deviation: dict[str, float]


@dataclass(frozen=True)
class SharingEntry(Entry):
    """What a change of the sharing says of itself."""

    kind = "sharing"
    schema = Record({"phase": Text()})
    phase: str
    numbers: dict[str, float]


@dataclass(frozen=True)
class ConclusionEntry(SharingEntry):
    """What a sharing learned after the last step."""

    kind = "conclusion"


KINDS: dict[str, type[Entry]] = {
    kind.kind: kind
    for kind in (
        TrainingEntry,
        EvaluationEntry,
        ConflictsEntry,
        RoutingEntry,
        RelationsEntry,
        SharingEntry,
        ConclusionEntry,
    )
}
