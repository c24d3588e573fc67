"""What a data set says of where it is from, beside what can be counted."""

from collections.abc import Sequence
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

    @classmethod
    def of_manifest(cls, manifest: Document) -> "Card":
        """The card in a manifest; of data sets without one, what their source says."""
        if "card" in manifest:
            return cls.read(manifest["card"])
        source, suite = manifest["source"], manifest["suite"]["class_path"].rsplit(".", 1)[-1]
        if "recipe" in source:
            return cls(recipe_origin(suite, source["recipe"]))
        stated = ", ".join(f"{key} {value}" for key, value in source.items() if value is not None)
        return cls(f"{suite}, {stated}" if stated else f"{suite}, nothing else is known")


def recipe_origin(suite: str, recipe: str) -> str:
    """What made the episodes of a recipe, in words.

    Args:
        suite: Name of the suite.
        recipe: Name of the recipe.
    """
    actor = "random actions in" if recipe == "random" else "scripted experts of"
    return f"{actor} {suite}, recipe {recipe}"


def joined_card(cards: Sequence[Card]) -> Card:
    """The card of a data set that holds the episodes of several: each origin, licence and note once."""

    def each(values: Sequence[str]) -> list[str]:
        return list(dict.fromkeys(values))

    licences = each([card.licence or "unknown" for card in cards])
    return Card(
        "; ".join(each([card.origin for card in cards])),
        None if licences == ["unknown"] else "; ".join(licences),
        tuple(each([note for card in cards for note in card.notes])),
    )
