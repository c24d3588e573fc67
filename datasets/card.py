"""What a data set says of where it is from, beside what can be counted."""

from dataclasses import dataclass
from typing import Any

from mtorl.schema import Document, ListOf, Nullable, Record, Text

CARD: Record = Record({"origin": Text(), "licence": Nullable(Text()), "notes": ListOf(Text())})
"""What a manifest holds of it."""


@dataclass(frozen=True)
class Card:
    """Where a data set is from, and what its users should know.

    Attributes:
        origin: Who or what made the episodes, in a sentence.
        licence: Its name, such as CC-BY-4.0; None: unknown.
        notes: What differs from what one would expect, a sentence each: keys that were left out, episodes without an
            end, dynamics that are not those of the suite.
    """

    origin: str
    licence: str | None = None
    notes: tuple[str, ...] = ()

    def plain(self) -> Document:
        """As plain values."""
        return {"origin": self.origin, "licence": self.licence, "notes": list(self.notes)}

    @classmethod
    def read(cls, content: dict[str, Any]) -> "Card":
        """The inverse of `plain`."""
        return cls(content["origin"], content["licence"], tuple(content["notes"]))
