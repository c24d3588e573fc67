"""Which data sets another one was made from, and how."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.store import EpisodeStore
from mtorl.files import sha256
from mtorl.schema import Document, MappingOf, Plain, Record, Text, check

PARENT = Record({"path": Text(), "sha256": Text(), "operation": Text(), "options": MappingOf(Plain())})


@dataclass(frozen=True)
class Parent:
    """A data set that another one was made from.

    Attributes:
        path: Its folder, when that was done; absolute.
        sha256: Of its manifest, which holds the hashes of everything else.
        operation: What was done: split, filter or merge.
        options: How, by the operation's parameters.
    """

    path: str
    sha256: str
    operation: str
    options: Document = field(default_factory=dict)

    @classmethod
    def of(cls, store: EpisodeStore, operation: str, options: Document) -> "Parent":
        """A data set to which that is done now."""
        return cls(str(store.path.resolve()), sha256(store.path / "manifest.json"), operation, options)

    def plain(self) -> Document:
        """As plain values."""
        return asdict(self)

    @property
    def words(self) -> str:
        """What was done to it."""
        options = ", ".join(f"{key} {value}" for key, value in self.options.items())
        return f"{self.operation} of {self.path} (manifest {self.sha256[:12]}{', ' * bool(options)}{options})"

    def verify(self, child: EpisodeStore) -> bool:
        """Whether it is still there.

        Raises:
            InputError: It is there, and is not what the other one was made from.
        """
        manifest = Path(self.path) / "manifest.json"
        if not manifest.is_file():
            return False
        found = sha256(manifest)
        if found != self.sha256:
            raise InputError(
                f"data set {child.path} was made from {self.path} with a manifest of sha256 {self.sha256[:12]}..., the "
                f"one there has {found[:12]}...: the parent was changed since. Make the data set again, or move the "
                "changed parent elsewhere."
            )
        return True


def parents_of(store: EpisodeStore) -> tuple[Parent, ...]:
    """The data sets that a data set was made from; see `parents_in`."""
    return parents_in(store.manifest.get("parents", ()), f"data set {store.path}: a parent in its manifest.json")


def parents_in(content: Sequence[Any], what: str) -> tuple[Parent, ...]:
    """The parents that a manifest names; those without an operation, as others may write them, are left out.

    Args:
        content: What the manifest holds of them.
        what: Names it in messages.

    Raises:
        InputError: One is malformed.
    """
    parents = []
    for entry in content:
        if isinstance(entry, dict) and "operation" in entry:
            check(entry, PARENT, what)
            parents.append(Parent(**{name: entry[name] for name in PARENT.fields}))
    return tuple(parents)
