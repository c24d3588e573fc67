"""Which tasks belong together: the product of a grouper, a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtorl import InputError
from mtorl.files import read_json, write_json
from mtorl.schema import Integer, ListOf, Names, Number, Record, Text, check, check_version

SCHEMA = 1
GROUPING = Record(
    {
        "schema": Integer(1),
        "method": Text(),
        "score": Number(),
        "task_names": Names("T"),
        "labels": ListOf(Integer(0), "T"),
        "affinity": ListOf(ListOf(Number(), "T"), "T"),
    },
    optional={"groups": ListOf(ListOf(Text()))},
)
"""What `Grouping.save` writes; the groups are there for people."""


@dataclass(frozen=True)
class Grouping:
    """An assignment of tasks to groups.

    Attributes:
        task_names: The T tasks.
        labels: `[T]`, the group of each task, from 0.
        affinity: `[T, T]`, how close every two tasks are; larger is closer.
        score: How well separated the groups are, by the method's own measure.
        method: Who found them, and from what.
    """

    task_names: tuple[str, ...]
    labels: tuple[int, ...]
    affinity: tuple[tuple[float, ...], ...]
    score: float
    method: str

    def __post_init__(self) -> None:
        size = len(self.task_names)
        if len(self.labels) != size or len(self.affinity) != size or any(len(row) != size for row in self.affinity):
            raise InputError(
                f"a grouping of {size} tasks has {len(self.labels)} labels and {len(self.affinity)} rows of affinity; "
                "expected one each per task."
            )
        if sorted(set(self.labels)) != list(range(self.count)):
            raise InputError(f"the groups are {sorted(set(self.labels))}; expected 0, 1, ... without gaps.")

    @property
    def count(self) -> int:
        """Number of groups."""
        return max(self.labels, default=-1) + 1

    def labels_of(self, task_names: tuple[str, ...]) -> list[int]:
        """The groups of these tasks; raises InputError for one that is not grouped."""
        labels = dict(zip(self.task_names, self.labels, strict=True))
        missing = [name for name in task_names if name not in labels]
        if missing:
            raise InputError(f"tasks {missing} are in no group; the grouping knows {list(self.task_names)}.")
        return [labels[name] for name in task_names]

    def groups_of(self, task_names: tuple[str, ...]) -> tuple[int, ...]:
        """The same, numbered from 0 without gaps: of some of the tasks, some groups may be empty."""
        labels = self.labels_of(task_names)
        used = sorted(set(labels))
        return tuple(used.index(label) for label in labels)

    def save(self, path: str | Path) -> None:
        """Writes it as JSON, atomically."""
        write_json(
            Path(path),
            {
                "schema": SCHEMA,
                "method": self.method,
                "score": self.score,
                "groups": [
                    [name for name, label in zip(self.task_names, self.labels, strict=True) if label == group]
                    for group in range(self.count)
                ],
                "task_names": list(self.task_names),
                "labels": list(self.labels),
                "affinity": [list(row) for row in self.affinity],
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> "Grouping":
        """Reads what `save` wrote.

        Raises:
            InputError: The file is missing, malformed, or of a newer version.
        """
        content = read_json(Path(path), "grouping")
        what = f"grouping {path}"
        check_version(content, SCHEMA, what)
        check(content, GROUPING, what)
        affinity = tuple(tuple(float(value) for value in row) for row in content["affinity"])
        names, labels = tuple(content["task_names"]), tuple(content["labels"])
        try:
            return cls(names, labels, affinity, float(content["score"]), content["method"])
        except InputError as error:
            raise InputError(f"{what}: {error} Write it again with `mtorl group`.") from None


def same_groups(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two lists of labels `[T]` put the same tasks together, however they number the groups."""
    return len(one) == len(other) and len({*zip(one, other, strict=True)}) == len({*one}) == len({*other})
