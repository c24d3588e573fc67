"""What is said of data sets: where they are from, how they are made again, how their returns are spread."""

import json
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtorl.datasets.card import Card
from mtorl.datasets.parents import Parent, parents_in, parents_of
from mtorl.datasets.statistics import QUANTILES
from mtorl.schema import Document

if TYPE_CHECKING:
    from mtorl.datasets.spec import DataSpec
    from mtorl.datasets.store import EpisodeStore

BINS = 12
BARS, PLAIN_BARS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
"""From none to the most episodes; the second for terminals that cannot show the first."""


def bars(returns: NDArray[np.floating]) -> str:
    """A histogram of returns in one line, from the least to the most."""
    if not returns.size:
        return ""
    counts = _counts(returns)
    encoding = sys.stdout.encoding or "ascii"
    marks = BARS if BARS.encode(encoding, "replace").decode(encoding) == BARS else PLAIN_BARS
    return "".join(marks[int(np.ceil(8 * count / counts.max()))] for count in counts)


def heights(quantiles: Sequence[float]) -> list[float]:
    """Heights in [0, 1] of a histogram from the least to the most return, from the quantiles that runs keep."""
    levels = (np.arange(400) + 0.5) / 400
    counts = _counts(np.interp(levels, QUANTILES, quantiles))
    return [round(float(count / counts.max()), 3) for count in counts]


def _counts(returns: NDArray[np.floating]) -> NDArray[np.int64]:
    """Episodes in each of the bins; all in the middle if the returns are equal."""
    values = returns.astype(np.float64)
    low, high = values.min(), values.max()
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        return np.bincount([BINS // 2] * len(values), minlength=BINS)
    places = ((values - low) / (high - low) * BINS).astype(np.int64)
    return np.bincount(np.minimum(places, BINS - 1), minlength=BINS)


def facts(store: "EpisodeStore") -> list[tuple[str, str]]:
    """Where a data set is from, by names: origin, licence, parents, versions, notes."""
    versions = ", ".join(f"{name} {value[:12]}" for name, value in store.manifest["versions"].items())
    return [*_facts(store.card, parents_of(store)), *([("versions", versions)] if versions else [])]


def facts_of(data: Document) -> list[tuple[str, str]]:
    """The same of a data set that a run was trained on, as its specification describes it."""
    if "source" not in data or "suite" not in data:  # specifications of the first versions
        return []
    return _facts(Card.of_manifest(data), parents_in(data.get("parents", ()), "the run's data specification"))


def _facts(card: Card, parents: Sequence[Parent]) -> list[tuple[str, str]]:
    return [
        ("origin", card.origin),
        ("licence", card.licence or "unknown"),
        *(("made by", parent.words) for parent in parents),
        *(("note", note) for note in card.notes),
    ]


CONTENT = ("step", "sha256", "demonstrations_sha256")
"""What a data set's source says that is no option of `mtorl collect`."""


def commands_for(specs: "Sequence[DataSpec]") -> list[str]:
    """The commands that make the data sets of runs again."""
    commands = [_command(data) for spec in specs for data in spec.data if "source" in data and "suite" in data]
    return list(dict.fromkeys(commands))


def _command(data: Document) -> str:
    parents = parents_in(data.get("parents", ()), "the run's data specification")
    if parents:
        return _operation(parents, data["path"])
    source = data["source"]
    if "importer" in source:
        return shlex.join(["mtorl", "import", source["importer"].lower(), *source["files"], "--out", data["path"]])
    path = data["suite"]["class_path"]
    options = {"suite": path.rsplit(".", 1)[-1] if path.startswith("mtorl.") else path}
    options |= {f"suite.{key}": value for key, value in data["suite"]["init_args"].items() if value is not None}
    options |= {name: value for name, value in source.items() if name not in CONTENT}
    options["out"] = data["path"]
    words = [f"--{key} {shlex.quote(_plain(value))}" for key, value in options.items()]
    return " ".join(["mtorl collect", *words])


def _operation(parents: Sequence[Parent], out: str) -> str:
    """What makes a data set of its parents."""
    operation, options = parents[0].operation, dict(parents[0].options)
    folders = {"first": [out, "ANOTHER_FOLDER"], "second": ["ANOTHER_FOLDER", out]}.get(options.pop("part", ""), [out])
    words = ["mtorl", operation, *(parent.path for parent in parents)]
    for key, value in options.items():
        words += [f"--{key}", *(value if isinstance(value, list) else [_plain(value)])]
    return shlex.join([*words, "--out", *folders])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
