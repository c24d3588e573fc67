"""What a data set says of itself, enclosed in files of other kinds: an import makes the same data set of them again.

It is JSON: a manifest without what can be counted, and which episodes a file holds. Files are from strangers: what is
read is looked through before anything of it is used, and the class that it names as its suite is not imported here.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mtorl import InputError
from mtorl.datasets.card import Card
from mtorl.datasets.importers.base import Contents
from mtorl.datasets.store import HEAD, SCHEMA
from mtorl.schema import Document, Integer, MappingOf, Number, Record, Text, check, check_version

KEY = "mtorl/manifest"
"""Where it stands in the files."""
ENCLOSED = Record({**HEAD.fields, "versions": MappingOf(Text())}, HEAD.optional)
"""What is enclosed. As much must be known of versions as tables show of them."""
PART = Record({"task": Text(), "first": Integer(0), "episodes": Integer(1), "of": Integer(1)})
ORIGIN = Record(
    {},
    {"goal": Integer(-1, 2**31 - 1), "seed": Integer(-(2**63)), "noise": Number(0), "random": Number(0, 1)},
)
"""What is known of an episode: the fields of `Episode` with these names."""
MOST = 10_000_000
"""Tasks times O: the statistics of every task are kept in memory."""
REMEDY = "Export the data set again."


@dataclass(frozen=True)
class Part:
    """Which episodes of a data set a file holds, where there is a file for each task.

    Attributes:
        task: Name of their task.
        first: Number of the first of them in the data set.
        episodes: How many they are.
        of: How many the data set has.
    """

    task: str
    first: int
    episodes: int
    of: int


def head_of(manifest: Document) -> Document:
    """What is enclosed: a manifest, of the form `store.MANIFEST`, without what can be counted."""
    return {name: manifest[name] for name in (*HEAD.fields, *HEAD.optional) if name in manifest}


def write_part(manifest: Document, part: Part) -> str:
    """The text that goes into a file that holds that part of the data set."""
    return json.dumps(head_of(manifest) | {"part": asdict(part)})


def read_part(text: bytes, where: str) -> tuple[Document, Part]:
    """The inverse of `write_part`.

    Args:
        text: Read from a file.
        where: Names the file in messages.

    Returns:
        Of the form `ENCLOSED`, and the part.

    Raises:
        InputError: It is malformed.
    """
    what = f"{where}: its {KEY}"
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} is no JSON: {error}. {REMEDY}") from None
    head = read_head(content, what)
    check(content, Record({"part": PART}), what, REMEDY)
    part = Part(**{name: content["part"][name] for name in PART.fields})
    if part.task not in head["task_names"]:
        raise InputError(f"{what} names the task {part.task!r}; it lists {head['task_names']}. {REMEDY}")
    return head, part


def read_head(content: Any, what: str) -> Document:
    """Looks through what was enclosed.

    Args:
        content: Plain values, read from a file.
        what: Names the file in messages.

    Returns:
        Of the form `ENCLOSED`.

    Raises:
        InputError: It is malformed, or contradicts itself.
    """
    check_version(content, SCHEMA, what)
    check(content, ENCLOSED, what, REMEDY)
    head = head_of(content)
    unknown = [name for name in head.get("returns_only", ()) if name not in head["task_names"]]
    if unknown:
        raise InputError(f"{what} says that {unknown} know no success; it lists {head['task_names']}. {REMEDY}")
    whole = head["observation_dim"], head["action_dim"]
    for own in head.get("own_dimensions", ()):
        if any(part > all_ for part, all_ in zip(own, whole, strict=True)):
            raise InputError(f"{what} gives a task the dimensions {own}; it has {list(whole)} in all. {REMEDY}")
    return head


def contents_of(head: Document, dimensions: tuple[int, int], episodes: int, what: str) -> Contents:
    """What is known of a data set from what was enclosed.

    Args:
        head: From `read_head`.
        dimensions: O and A of the arrays beside it.
        episodes: How many there are.
        what: Names the file in messages.

    Raises:
        InputError: The arrays have other dimensions, or there are too many tasks.
    """
    stated = head["observation_dim"], head["action_dim"]
    if stated != dimensions:
        raise InputError(f"{what} states the dimensions {list(stated)}; the arrays have {list(dimensions)}. {REMEDY}")
    names = tuple(head["task_names"])
    if len(names) * stated[0] > MOST:
        raise InputError(f"{what} lists {len(names)} tasks of {stated[0]} numbers; expected at most {MOST} in all.")
    own = head.get("own_dimensions")
    return Contents(
        names,
        *dimensions,
        card=Card.read(head["card"]) if "card" in head else Card(f"exported by mtorl: {_origin(head['source'])}"),
        suite=head["suite"],
        horizon=head["horizon"],
        versions=head["versions"],
        returns_only=tuple(head.get("returns_only", ())),
        episodes=episodes,
        own_dimensions=None if own is None else [(observation, action) for observation, action in own],
        source=head["source"],
        parents=head.get("parents", ()),
    )


def contents_of_parts(parts: Sequence[tuple[str, Document, Part]], dimensions: tuple[int, int]) -> Contents:
    """What is known of a data set from the files that hold its parts.

    Args:
        parts: Each file's name, and what was read from it.
        dimensions: O and A of the arrays in them.

    Returns:
        All tasks of the data set if all its episodes are there, otherwise those that there are files of.

    Raises:
        InputError: The files are of different data sets, or two of them hold the same task.
    """
    (first, head, _), *others = parts
    for name, other, _ in others:
        if other != head:
            raise InputError(
                f"{first} and {name} are parts of different data sets. Import each data set on its own, and join them "
                "with `mtorl merge`."
            )
    names, _, found = zip(*parts, strict=True)
    given = [part.task for part in found]
    twice = [name for name in given if given.count(name) > 1]
    if twice:
        raise InputError(f"two files hold the task {twice[0]!r}: {', '.join(names)}. Give each file once.")
    episodes = sum(part.episodes for part in found)
    if episodes != found[0].of:
        head = _of_tasks(head, given)
    return contents_of(head, dimensions, episodes, f"{first}: its {KEY}")


def _of_tasks(head: Document, tasks: list[str]) -> Document:
    """The same of some tasks only."""
    places = [place for place, name in enumerate(head["task_names"]) if name in tasks]
    chosen = {"task_names": [head["task_names"][place] for place in places]}
    if "returns_only" in head:
        chosen["returns_only"] = [name for name in head["returns_only"] if name in tasks]
    if "own_dimensions" in head:
        chosen["own_dimensions"] = [head["own_dimensions"][place] for place in places]
    return head | chosen


def _origin(source: Document) -> str:
    return ", ".join(f"{key} {value}" for key, value in source.items() if value is not None)
