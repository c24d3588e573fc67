"""What changed between runs: settings that differ, and of two runs the difference in every task."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtorl import InputError
from mtorl.measures import Measure
from mtorl.reports.entries import RunEntry
from mtorl.runs.configuration import FREE_KEYS, flatten
from mtorl.schema import Document

OWN = {"out", *FREE_KEYS} - {"data"}
"""Settings that say nothing of the result."""
LARGEST = 10
"""Tasks that are shown of many."""


@dataclass(frozen=True)
class Change:
    """One task, or the mean of several, in two runs.

    Attributes:
        name: Of the task.
        first: What it is judged by in the first run.
        second: In the second.
        difference: The second less the first.
    """

    name: str
    first: Measure
    second: Measure
    difference: Measure

    @property
    def sure(self) -> bool:
        """Whether the interval of the difference is on one side of zero."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and not low <= 0 <= high

    @property
    def weight(self) -> float:
        """How large the difference is, measured by its interval; 0 where that is not known."""
        low, high = self.difference.ends
        return abs(self.difference.value) / (high - low) if high > low else 0.0


@dataclass(frozen=True)
class Changes:
    """What differs between runs.

    Attributes:
        settings: Name of each setting that is not the same in all runs, and what it is in each.
        tasks: Of two runs every task; of more none.
        means: Of two runs the means over tasks.
    """

    settings: list[tuple[str, list[str]]]
    tasks: list[Change]
    means: list[Change]

    @property
    def largest(self) -> list[Change]:
        """The tasks that changed most, from the best to the worst of them."""
        chosen = sorted(self.tasks, key=lambda it: it.weight, reverse=True)[:LARGEST]
        return sorted(chosen, key=lambda it: it.weight if it.difference.value > 0 else -it.weight, reverse=True)

    def plain(self) -> Document:
        """As plain values."""

        def rows(changes: Sequence[Change]) -> list[Document]:
            return [{"of": it.name, **it.difference.plain(), "sure": it.sure} for it in changes]

        return {"settings": dict(self.settings), "tasks": rows(self.tasks), "means": rows(self.means)}


def changes_of(entries: Sequence[RunEntry]) -> Changes:
    """Compares the runs of a report, which have the same tasks."""
    settings = _settings_that_differ([_settings(entry) for entry in entries])
    if len(entries) != 2:
        return Changes(settings, [], [])
    one, two = entries
    pairs = [(a.task, a.measure, b.measure) for a, b in zip(one.rows, two.rows, strict=True)]
    means = [
        (f"mean {a.scale.name} of {a.tasks} tasks", a, b)
        for a, b in zip(one.report.means, two.report.means, strict=True)
    ]
    return Changes(settings, *([Change(name, a, b, b.less(a)) for name, a, b in some] for some in (pairs, means)))


def _settings(entry: RunEntry) -> dict[str, str]:
    """All that a run was configured with, its data and the versions it was trained with, as text."""
    plain = flatten(entry.run.configuration.plain)  # with the defaults of options that came later
    found = {name: _text(value) for name, value in plain.items() if name.split(".")[0] not in OWN}
    found = {name.replace(".init_args", "").replace(".class_path", ""): value for name, value in found.items()}
    found["contents of data"] = ", ".join(source["sha256"][:12] for source in entry.run.spec.data)
    try:
        machine = entry.run.machine()
    except InputError:  # the page says so where it shows the machine
        return found
    versions = {"mtorl": machine["mtorl"], "Python": machine["python"], **machine["versions"]}
    return found | {f"version of {name}": str(version) for name, version in versions.items()}


def _settings_that_differ(runs: Sequence[dict[str, str]]) -> list[tuple[str, list[str]]]:
    names = dict.fromkeys(name for settings in runs for name in settings)
    rows = [(name, [settings.get(name, "-") for settings in runs]) for name in names]
    return [row for row in rows if len(set(row[1])) > 1]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith("mtorl.") else value
    return json.dumps(value)
