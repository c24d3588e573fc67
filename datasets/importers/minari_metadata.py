"""What the metadata.json of a Minari data set says, looked through: it is from a stranger."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.enclosed import read_head
from mtorl.datasets.importers.texts import parse_json, read_text
from mtorl.datasets.minari_folders import HEAD_KEY
from mtorl.schema import Document, Integer, ListOf, MappingOf, Nullable, Plain, Record, Text, check

METADATA = Record(
    {"total_episodes": Integer(1)},
    optional={
        "data_format": Text(),
        "observation_space": Text(),
        "action_space": Text(),
        "env_spec": Nullable(Text()),
        "description": Text(),
        "algorithm_name": Text(),
        "author": ListOf(Text()),
        "minari_version": Text(),
    },
)
SPACE = Record({"type": Text()})
BOX = Record({"shape": ListOf(Integer(0)), "dtype": Text()})
ENVIRONMENT = Record(
    {"id": Text()},
    optional={
        "entry_point": Nullable(Text()),
        "max_episode_steps": Nullable(Integer(1)),
        "kwargs": MappingOf(Plain()),
        "additional_wrappers": ListOf(Plain()),
    },
)
REMEDY = "Download the data set again."


@dataclass(frozen=True)
class Environment:
    """The environment that a data set names.

    Attributes:
        id: Its name in gymnasium.
        steps: Its time limit; None: unknown.
        plain: It is one of gymnasium's own, with nothing changed.
    """

    id: str
    steps: int | None
    plain: bool


@dataclass(frozen=True)
class MinariSet:
    """A data set of Minari, before its episodes are read.

    Attributes:
        path: Its folder.
        episodes: How many it has.
        bounds: Lower and upper bounds of the actions `[A]`; None: not stated.
        observation_dim: O; None: not stated.
        environment: What it was recorded in; None: not stated.
        head: What our own exports enclose; None: it is not one of them.
        facts: What else it says of itself, in words.
    """

    path: Path
    episodes: int
    bounds: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    observation_dim: int | None
    environment: Environment | None
    head: Document | None
    facts: tuple[str, ...]

    @property
    def file(self) -> Path:
        """The episodes."""
        return self.path / "data/main_data.hdf5"


def read_set(path: Path) -> MinariSet:
    """Reads the metadata of a data set.

    Args:
        path: Its folder, which holds the folder `data`.

    Raises:
        InputError: No data set of a readable kind is there.
    """
    file = path / "data/metadata.json"
    if not file.exists():
        raise InputError(
            f"{path}: expected the file data/metadata.json there. Data sets of Minari before 0.5 have none; download "
            "the data set again with a newer Minari."
        )
    for inner in (file, path / "data/main_data.hdf5"):
        if not inner.resolve().is_relative_to(path.resolve()):
            raise InputError(
                f"{inner} is a link out of its folder; expected a regular file. Put the file itself there."
            )
    what = f"Minari data set {path}: its metadata.json"
    content = parse_json(read_text(file), what, REMEDY)
    check(content, METADATA, what, REMEDY)
    if content.get("data_format", "hdf5") != "hdf5":
        raise InputError(
            f"{what} says that the data are of the format {content['data_format'][:40]!r}; expected hdf5. Write them "
            "again with `minari.create_dataset_from_buffers(..., data_format='hdf5')`."
        )
    observations = _box(content, "observation_space", what)
    actions = _box(content, "action_space", what)
    return MinariSet(
        path,
        content["total_episodes"],
        _bounds(actions, what) if actions else None,
        observations["shape"][0] if observations else None,
        _environment(content, what),
        read_head(content[HEAD_KEY], f"{what}: {HEAD_KEY}") if HEAD_KEY in content else None,
        _facts(content),
    )


def _box(content: Document, name: str, what: str) -> Document | None:
    """A space of flat vectors, as Minari writes it down; None if it is not there."""
    if name not in content:
        return None
    space = parse_json(content[name], f"{what}: {name}", REMEDY)
    check(space, SPACE, f"{what}: {name}", REMEDY)
    kind = space["type"]
    if kind == "Box":
        check(space, BOX, f"{what}: {name}", REMEDY)
        if len(space["shape"]) == 1 and space["shape"][0]:
            return dict(space)
        kind = f"Box of the shape {space['shape']}"
    raise InputError(
        f"{what}: the {name.replace('_', ' ')} is {kind}; expected Box, a flat vector of numbers. Images, dictionaries "
        "and choices from a list are not read; flatten them, and write the data set again."
    )


def _bounds(space: Document, what: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    size = space["shape"][0]
    found = []
    for name in ("low", "high"):
        values = space.get(name)
        if (
            not isinstance(values, list)
            or len(values) != size
            or not all(type(it) in (int, float) and it == it for it in values)  # NaN is not itself
        ):
            raise InputError(f"{what}: {name} of the action space is no list of {size} numbers. {REMEDY}")
        found.append(np.array([float(it) if abs(it) < 1e300 else np.copysign(np.inf, it) for it in values]))
    low, high = found
    if not (low < high).all():
        place = int((~(low < high)).argmax())
        raise InputError(
            f"{what}: the action space reaches from {low[place]:g} to {high[place]:g} in dimension {place}; expected a "
            f"lower and an upper bound. {REMEDY}"
        )
    return low, high


def _environment(content: Document, what: str) -> Environment | None:
    text = content.get("env_spec")
    if text is None:
        return None
    spec = parse_json(text, f"{what}: env_spec", REMEDY)
    check(spec, ENVIRONMENT, f"{what}: env_spec", REMEDY)
    own = str(spec.get("entry_point")).startswith("gymnasium.envs.") and re.fullmatch(r"\w+-v\d+", spec["id"], re.ASCII)
    changed = spec.get("kwargs") or spec.get("additional_wrappers")
    return Environment(spec["id"], spec.get("max_episode_steps"), bool(own and not changed))


def _facts(content: Document) -> tuple[str, ...]:
    words = {
        "description": "{}",
        "algorithm_name": "actions by {}",
        "minari_version": "Minari {}",
    }
    facts = [text.format(" ".join(content[name].split())[:500]) for name, text in words.items() if content.get(name)]
    authors = ", ".join(content.get("author", ()))[:500]
    return (*facts, *([f"by {authors}"] if authors else []))
