"""Compares runs in one HTML file that opens without a network, and the same numbers as JSON."""

import json
import shlex
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.spec import DataSpec
from mtorl.envs.protocol import ProtocolName, TaskVisibility
from mtorl.envs.results import EvalReport
from mtorl.files import DamageWarning, write_atomically, write_json
from mtorl.reports.pages import page, picture, subplots
from mtorl.reports.settings import Asked, choose, differences
from mtorl.runs.run import Run
from mtorl.trainers.logs import read_log

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Okabe and Ito's palette, distinguishable with colour-blind eyes."""
MARKS = {"expert": ("D", "#444444"), "random": ("x", "#444444")}


@dataclass(frozen=True)
class _Entry:
    """One run of the comparison."""

    name: str
    run: Run
    report: EvalReport
    log: list[dict[str, Any]]
    colour: str


def report(
    runs: Sequence[str | Path],
    out: str | Path | None = None,
    protocol: ProtocolName = "heldout",
    checkpoint: str = "last",
    goals: int | None = None,
    goal_visible: bool | None = None,
    task_identity: TaskVisibility | None = None,
    demonstrated: bool | None = None,
    act_with: str | None = None,
    references: str | Path | None = None,
) -> Path:
    """Compares any number of evaluated runs in one HTML file, with a JSON file beside it.

    Args:
        runs: Folders of runs, each evaluated with `mtorl evaluate`.
        out: The HTML file; `report.html` in the run's folder, or beside the folders of several runs, with protocol
            and checkpoint in its name if they are not the usual ones.
        protocol: Which evaluation to show: heldout, official or ml45-like.
        checkpoint: Of which checkpoint.
        goals: Of how many goals per task; the most that all runs were evaluated with by default.
        goal_visible: With the goal shown or hidden; as in the data by default.
        task_identity: Where the task was told (shown) or not (hidden); told by default, if all runs have that.
        demonstrated: Where an episode of the task was shown, or none; none by default, if all runs have that.
        act_with: Which policy of agents that have several was played; what their configurations say, by default.
        references: Folder with the reports of the expert and of random actions; `references` beside the first run by
            default. Those of the same suite and protocol are shown.

    Returns:
        The HTML file.

    Raises:
        InputError: A run was not evaluated under this protocol, or the runs have different tasks.
    """
    runs = [runs] if isinstance(runs, str | Path) else runs
    if not runs:
        raise InputError("no run was given; expected at least one folder of an evaluated run.")
    opened = [Run(folder) for folder in runs]
    found = [run.reports(protocol, checkpoint) for run in opened]
    reports = choose(opened, found, Asked(goals, goal_visible, task_identity, demonstrated, act_with))
    entries = [
        _Entry(run.folder.name, run, report, read_log(run.folder), COLOURS[number % len(COLOURS)])
        for number, (run, report) in enumerate(zip(opened, reports, strict=True))
    ]
    names = _common_names([entry.run.folder for entry in entries])
    entries = [replace(entry, name=name) for name, entry in zip(names, entries, strict=True)]
    for entry in entries[1:]:
        differing = differences(entries[0].report, entry.report)
        if differing:
            raise InputError(
                f"{entries[0].run.folder} and {entry.run.folder} cannot be compared: {' and '.join(differing)} of "
                f"their {protocol} evaluations differ. Evaluate both in the same way."
            )
    first = opened[0].folder
    if references is not None and not Path(references).is_dir():
        raise InputError(f"no folder {references}; expected one with reports of the expert and of random actions.")
    references_found = _find_references(Path(references or first.parent / "references"), entries[0].report)
    words = ["report", *([protocol] if protocol != "heldout" else []), *([checkpoint] if checkpoint != "last" else [])]
    target = Path(out or (first if len(entries) == 1 else first.parent) / f"{'-'.join(words)}.html")
    if target.suffix != ".html":
        raise InputError(f"the report is to be {target}; expected a name that ends in .html.")
    content = _content(entries, references_found) | {"checkpoint": checkpoint}
    write_json(target.with_suffix(".json"), _as_json(entries, references_found))
    html = page("report.html", content)
    write_atomically(target, lambda file: file.write(html))
    return target


def _common_names(folders: Sequence[Path]) -> list[str]:
    names = [folder.name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _find_references(folder: Path, report: EvalReport) -> dict[str, EvalReport]:
    """The reports of reference policies that were played in the same way, restricted to the report's tasks."""
    found: dict[str, EvalReport] = {}
    for path in sorted(folder.glob("*.json")):
        try:
            other = EvalReport.load(path)
        except InputError as error:
            if path.name.startswith(tuple(MARKS)):  # otherwise some other file
                _left_out(error)
            continue
        if other.policy in MARKS and set(report.task_names) <= set(other.task_names):
            chosen = tuple(episode for episode in other.episodes if episode.task in report.task_names)
            other = replace(other, task_names=report.task_names, episodes=chosen)
            if not differences(report, other):
                found[other.policy] = other
    return found


def _as_json(entries: Sequence[_Entry], references: dict[str, EvalReport]) -> dict[str, Any]:
    def summary(name: str, report: EvalReport) -> dict[str, Any]:
        low, high = report.mean_interval()
        return {
            "name": name,
            "mean_success": report.mean_success,
            "low": low,
            "high": high,
            "protocol": vars(report.protocol),
            "tasks": [row._asdict() | {"rate": row.rate} for row in report.tasks()],
        }

    return {
        "mean_success": entries[0].report.mean_success,
        "runs": [summary(entry.name, entry.report) for entry in entries],
        "references": [summary(name, report) for name, report in references.items()],
    }


def _content(entries: Sequence[_Entry], references: dict[str, EvalReport]) -> dict[str, Any]:
    report = entries[0].report
    specs = _distinct([(entry.name, entry.run.spec) for entry in entries])
    return {
        "title": ", ".join(entry.name for entry in entries),
        "protocol": report.protocol,
        "goals": "training goals" if report.protocol.split == "train" else "held-out goals (never trained on)",
        "entries": entries,
        "references": references,
        "tasks": [
            {
                "name": task,
                "runs": [entry.report.tasks()[number] for entry in entries],
                "references": [other.tasks()[number] for other in references.values()],
                "data": [dict(zip(spec.task_names, spec.success_rate, strict=True)).get(task) for _, spec in specs],
            }
            for number, task in enumerate(report.task_names)
        ],
        "bars": picture(_draw_bars(entries, references)),
        "curves": picture(_draw_curves(entries)),
        "conflicts": _pictures(entries, "conflicts", _draw_conflicts),
        "routing": _pictures(entries, "routing", _draw_routing),
        "collections": _collections(entries),
        "configs": [(entry.run.folder / "config.yaml").read_text(errors="replace") for entry in entries],
        "machines": [_machine(entry.run) for entry in entries],
        "specs": specs,
        "versions": report.versions,
    }


def _left_out(fault: object) -> None:
    warnings.warn(f"{fault} It is left out.", DamageWarning, stacklevel=3)


def _pictures(entries: Sequence[_Entry], kind: str, draw: Callable[[_Entry], Any]) -> list[tuple[str, str]]:
    """A picture for each run whose log has such entries, and of its own tasks."""
    drawn = []
    for entry in entries:
        others = {task for row in _records(entry, kind) for task in row["tasks"]} - {*entry.run.spec.task_names}
        if others:
            _left_out(
                f"{entry.run.folder / 'log.jsonl'}: {kind} are those of other tasks, {', '.join(sorted(others))}."
            )
        elif _records(entry, kind):
            drawn.append((entry.name, picture(draw(entry))))
    return drawn


def _machine(run: Run) -> dict[str, Any]:
    """Where the run was begun, as far as that can be read."""
    try:
        return run.machine()
    except InputError as error:
        _left_out(error)
        names = ("mtorl", "python", "platform", "processors")
        return {**dict.fromkeys(names, "unknown"), "versions": {}, "command": []}


def _distinct(named: Sequence[tuple[str, DataSpec]]) -> list[tuple[str, DataSpec]]:
    """Data specifications without repetitions, each with the names of the runs that used it."""
    groups: list[tuple[list[str], DataSpec]] = []
    for name, spec in named:
        known = next((names for names, other in groups if other == spec), None)
        if known is None:
            groups.append(([name], spec))
        else:
            known.append(name)
    return [(", ".join(names), spec) for names, spec in groups]


def _collections(entries: Sequence[_Entry]) -> list[str]:
    """The commands that collect the runs' data again."""
    commands = []
    for data in (data for entry in entries for data in entry.run.spec.data):
        path = data["suite"]["class_path"]
        options = {"suite": path.rsplit(".", 1)[-1] if path.startswith("mtorl.") else path}
        options |= {f"suite.{key}": value for key, value in data["suite"]["init_args"].items() if value is not None}
        options |= {**data["source"], "out": data["path"]}
        words = [f"--{key} {shlex.quote(_plain(value))}" for key, value in options.items()]
        commands.append(" ".join(["mtorl collect", *words]))
    return list(dict.fromkeys(commands))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _draw_bars(entries: Sequence[_Entry], references: dict[str, EvalReport]) -> Any:
    """Horizontal bars: success of every task, with 95 % intervals and the reference rows as marks."""
    tasks = entries[0].report.task_names
    thickness = 0.8 / len(entries)
    height = max(2.0, 0.3 + len(tasks) * (0.25 + 0.16 * len(entries)))
    figure, axes = subplots(1, 1, (9, height))
    axis = axes[0][0]
    for number, entry in enumerate(entries):
        rows = entry.report.tasks()
        places = [place - 0.4 + (number + 0.5) * thickness for place in range(len(rows))]
        below = [100 * (row.rate - row.low) for row in rows]
        above = [100 * (row.high - row.rate) for row in rows]
        axis.barh(
            places,
            [100 * row.rate for row in rows],
            thickness * 0.9,
            color=entry.colour,
            alpha=0.85,
            label=entry.name,
            xerr=[[max(value, 0) for value in below], [max(value, 0) for value in above]],
            error_kw={"ecolor": "#333333", "elinewidth": 1, "capsize": 2},
        )
    lines = range(len(tasks))
    specs = _distinct([(entry.name, entry.run.spec) for entry in entries])
    for number, (names, spec) in enumerate(specs):
        shift = 0.0 if len(specs) == 1 else -0.4 + (number + 0.5) * 0.8 / len(specs)
        rates = dict(zip(spec.task_names, spec.success_rate, strict=True))
        known = [(place, rates[task]) for place, task in enumerate(tasks) if task in rates]
        axis.scatter(
            [100 * rate for _, rate in known],
            [place + shift for place, _ in known],
            marker="|",
            s=120 / len(specs),
            color="#111111",
            label="data" if len(specs) == 1 else f"data of {names}",
            zorder=4,
        )
    for name, report in references.items():
        mark, colour = MARKS[name]
        axis.scatter(
            [100 * row.rate for row in report.tasks()], lines, marker=mark, s=28, color=colour, label=name, zorder=5
        )
    axis.set_yticks(list(lines), [name.removesuffix("-v3") for name in tasks])
    axis.invert_yaxis()
    axis.set_xlim(-2, 103)
    axis.set_xlabel("episodes with success at any step, %  (bars: 95 % Wilson interval)")
    axis.grid(axis="x", color="#dddddd", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False)
    return figure


def _draw_curves(entries: Sequence[_Entry]) -> Any:
    """Training loss, and success on training goals, over steps."""
    figure, axes = subplots(1, 2, (11, 3.2))
    left, right = axes[0]
    for entry in entries:
        losses = [(row["step"], row["loss"]) for row in entry.log if row["kind"] == "training"]
        success = [
            (row["step"], 100 * row["mean_success"]) for row in entry.log if row["kind"].startswith("evaluation")
        ]
        if losses:
            left.plot(*zip(*losses, strict=True), color=entry.colour, label=entry.name)
        if success:
            right.plot(*zip(*success, strict=True), color=entry.colour, marker="o", markersize=3, label=entry.name)
    positive = all(value > 0 for line in left.lines for value in line.get_ydata())
    left.set_yscale("log" if positive else "linear")
    left.set_ylabel("training loss of the policy, mean of tasks")
    right.set_ylim(-2, 102)
    right.set_ylabel("success on training goals, %")
    for axis in (left, right):
        axis.set_xlabel("training step")
        axis.grid(color="#dddddd", linewidth=0.7)
    right.set_visible(bool(right.lines))  # nothing to see if no evaluation was asked for
    left.legend(frameon=False)
    return figure


def _records(entry: _Entry, kind: str = "conflicts") -> list[dict[str, Any]]:
    """What the monitor saw; of conflicts, in the run's last phase, which is the policy's."""
    found = [row for row in entry.log if row["kind"] == kind]
    return [row for row in found if row.get("phase") == found[-1].get("phase")]


def _mean_cosines(entry: _Entry, records: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Mean over records of the cosine of every pair of tasks; NaN for pairs that no batch held."""
    names = list(entry.run.spec.task_names)
    total, count = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    for row in records:
        places = np.ix_(*[[names.index(name) for name in row["tasks"]]] * 2)
        total[places] += row["cosines"]
        count[places] += 1
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _draw_conflicts(entry: _Entry) -> Any:
    """Cosines between task gradients, the share of pairs that conflict, and weights and norms per task over steps."""
    records = _records(entry)
    phase, names = records[0]["phase"], [name.removesuffix("-v3") for name in entry.run.spec.task_names]
    figure, axes = subplots(1, 4, (15, 3.4))
    heat, share, weights, norms = axes[0]
    image = heat.imshow(_mean_cosines(entry, records), cmap="RdBu_r", vmin=-1, vmax=1)
    figure.colorbar(image, ax=heat, shrink=0.8)
    heat.set_title("mean cosine of task gradients", fontsize=10)
    if len(names) <= 12:
        heat.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        heat.set_yticks(range(len(names)), names, fontsize=7)
    share.plot([row["step"] for row in records], [100 * row["negative_pairs"] for row in records], color=entry.colour)
    share.set_ylim(-2, 102)
    share.set_title("pairs of tasks in conflict, %", fontsize=10)
    for name, label in zip(entry.run.spec.task_names, names, strict=True):
        _draw_line(norms, [(row["step"], row["norm"].get(name)) for row in records], label)
        _draw_line(weights, [(row["step"], row.get(f"{phase}/weight/{name}")) for row in entry.log], label)
    norms.set_yscale("log")
    norms.set_title("norm of each task's gradient", fontsize=10)
    weights.set_title("weight of each task in the step", fontsize=10)
    for axis in (share, weights, norms):
        axis.set_xlabel("training step")
        axis.grid(color="#dddddd", linewidth=0.7)
    if len(names) <= 12:
        norms.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.tight_layout()
    return figure


def _draw_routing(entry: _Entry) -> Any:
    """How far apart tasks route at the end, and how sharply each does, over steps."""
    records = _records(entry, "routing")
    names = [name.removesuffix("-v3") for name in entry.run.spec.task_names]
    figure, axes = subplots(1, 2, (9.5, 3.8))
    heat, entropy = axes[0]
    image = heat.imshow(_last_distances(entry, records), cmap="viridis", vmin=0)
    figure.colorbar(image, ax=heat, shrink=0.8)
    heat.set_title(f"distance between the routing of tasks, step {records[-1]['step']:,}", fontsize=10)
    if len(names) <= 12:
        heat.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        heat.set_yticks(range(len(names)), names, fontsize=7)
    for name, label in zip(entry.run.spec.task_names, names, strict=True):
        _draw_line(entropy, [(row["step"], row["entropy"].get(name)) for row in records], label)
    entropy.set_ylim(-0.02, 1.02)
    entropy.set_title("entropy of each task's routing", fontsize=10)
    entropy.set_xlabel("training step")
    entropy.grid(color="#dddddd", linewidth=0.7)
    if len(names) <= 12:
        entropy.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1))
    figure.tight_layout()
    return figure


def _last_distances(entry: _Entry, records: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """The newest distance `[T, T]` of every two tasks that were in a batch together; NaN for others."""
    place = {name: number for number, name in enumerate(entry.run.spec.task_names)}
    found = np.full((len(place), len(place)), np.nan)
    for row in records:
        mine = [place[name] for name in row["tasks"]]
        found[np.ix_(mine, mine)] = row["distances"]
    return found


def _draw_line(axis: Any, points: Sequence[tuple[int, float | None]], label: str) -> None:
    known = [(step, value) for step, value in points if value is not None]
    if known:
        axis.plot(*zip(*known, strict=True), linewidth=1, label=label)
