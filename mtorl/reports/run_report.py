"""Compares runs in one HTML file that opens without a network, and the same numbers as JSON."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.spec import DataSpec
from mtorl.envs.protocol import ProtocolName, TaskVisibility
from mtorl.envs.results import EvalReport
from mtorl.files import DamageWarning, write_atomically, write_json
from mtorl.measures import RETURN, SCORE_NOTE, SUCCESS, common_scale
from mtorl.reports.changes import changes_of
from mtorl.reports.charts.base import picture
from mtorl.reports.charts.conflicts import draw_measured
from mtorl.reports.charts.fronts import draw_front
from mtorl.reports.charts.success import MARKS, draw_bars, draw_ranks
from mtorl.reports.charts.training import draw_conflicts, draw_curves, draw_relations, draw_routing
from mtorl.reports.data import commands_for, facts_of, heights
from mtorl.reports.entries import RunEntry, distinct_specs, entries_of, hardest_tasks
from mtorl.reports.films import embedded_film
from mtorl.reports.many import MANY_TASKS
from mtorl.reports.pages import page
from mtorl.reports.run_json import as_json, fronts_of
from mtorl.reports.settings import Asked, choose, differences
from mtorl.runs.conflicts import Conflicts, kept_conflicts
from mtorl.runs.run import Run
from mtorl.schema import Document
from mtorl.trainers.entries import ConflictsEntry, RelationsEntry, RoutingEntry


def report(
    runs: str | Path | Run | Sequence[str | Path | Run],
    out: str | Path | None = None,
    protocol: ProtocolName = "heldout",
    checkpoint: str = "last",
    goals: int | None = None,
    goal_visible: bool | None = None,
    task_identity: TaskVisibility | None = None,
    demonstrated: bool | None = None,
    act_with: str | None = None,
    references: str | Path | None = None,
    films: bool = False,
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
        films: Put a small film of each run into the page: of every task the first failure. Their episodes are played.

    Returns:
        The HTML file.

    Raises:
        InputError: A run was not evaluated under this protocol, or the runs have different tasks.
    """
    runs = [runs] if isinstance(runs, str | Path | Run) else runs
    if not runs:
        raise InputError("no run was given; expected at least one folder of an evaluated run.")
    opened = [Run(folder) for folder in runs]
    found = [run.reports(protocol, checkpoint) for run in opened]
    reports = choose(opened, found, Asked(goals, goal_visible, task_identity, demonstrated, act_with))
    entries = entries_of(opened, reports)
    for entry in entries[1:]:
        differing = differences(entries[0].report, entry.report)
        if differing:
            raise InputError(
                f"{entries[0].run.folder} and {entry.run.folder} cannot be compared: {' and '.join(differing)} of "
                f"their {protocol} evaluations differ. Evaluate both in the same way."
            )
    first = opened[0].home
    if references is not None and not Path(references).is_dir():
        raise InputError(f"no folder {references}; expected one with reports of the expert and of random actions.")
    references_found = _find_references(Path(references or first.parent / "references"), entries[0].report)
    words = ["report", *([protocol] if protocol != "heldout" else []), *([checkpoint] if checkpoint != "last" else [])]
    target = Path(out or (first if len(entries) == 1 else first.parent) / f"{'-'.join(words)}.html")
    if target.suffix != ".html":
        raise InputError(f"the report is to be {target}; expected a name that ends in .html.")
    changes = changes_of(entries) if len(entries) > 1 else None
    content = _content(entries, references_found) | {
        "checkpoint": checkpoint,
        "changes": changes,
        "measured": _measured_conflicts(entries, checkpoint),
        "films": [embedded_film(entry.run, entry.report) for entry in entries] if films else [],
    }
    changed = {"changes": changes.plain()} if changes else {}
    write_json(target.with_suffix(".json"), as_json(entries, references_found) | changed)
    html = page("report.html", content)
    write_atomically(target, lambda file: file.write(html))
    return target


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
            ours = set(report.task_names)
            chosen = tuple(episode for episode in other.episodes if episode.task in ours)
            other = replace(other, task_names=report.task_names, episodes=chosen)
            if not differences(report, other):
                found[other.policy] = other
    return found


def _content(entries: Sequence[RunEntry], references: dict[str, EvalReport]) -> Document:
    report, specs = entries[0].report, distinct_specs(entries)
    reference_rows = {name: other.tasks() for name, other in references.items()}
    tasks = [
        {
            "name": task,
            "runs": [entry.rows[number] for entry in entries],
            "references": [rows[number] for rows in reference_rows.values()],
            "data": [_of_data(spec, task) for _, spec in specs],
        }
        for number, task in enumerate(report.task_names)
    ]
    places = {task: number for number, task in enumerate(report.task_names)}
    worst = [tasks[places[task]] for shown in hardest_tasks(entries).values() for task in shown]
    return {
        "title": ", ".join(entry.name for entry in entries),
        "protocol": report.protocol,
        "goals": "training goals" if report.protocol.split == "train" else "held-out goals (never trained on)",
        "entries": entries,
        "references": references,
        "judged": common_scale([row.measure.scale for row in report.tasks()]),
        "any_success": SUCCESS in report.scales,
        "scored": any(row.score for row in report.tasks()),
        "score_note": SCORE_NOTE,
        "data_success": [_success_of_data(spec) for _, spec in specs],
        "tasks": tasks,
        "worst": worst,
        "many": MANY_TASKS,
        "bars": picture(draw_bars(entries, reference_rows)),
        "ranks": picture(ranks) if (ranks := draw_ranks(entries, reference_rows)) else None,
        "curves": picture(draw_curves(entries)),
        "conflicts": _pictures(entries, ConflictsEntry, draw_conflicts),
        "routing": _pictures(entries, RoutingEntry, draw_routing),
        "relations": _pictures(entries, RelationsEntry, draw_relations),
        "fronts": [
            (entry.name, front.reports[0].protocol, picture(draw_front(front)))
            for entry, fronts in zip(entries, fronts_of(entries), strict=True)
            for front in fronts
        ],
        "collections": commands_for([entry.run.spec for entry in entries]),
        "configs": [(entry.run.folder / "config.yaml").read_text(errors="replace") for entry in entries],
        "machines": [_machine(entry.run) for entry in entries],
        "parameters": [_parameters(entry.run) for entry in entries],
        "specs": specs,
        "data": [
            {
                "facts": [(data["path"], facts_of(data)) for data in spec.data],
                "heights": [heights(row) for row in spec.return_quantiles],
            }
            for _, spec in specs
        ],
        "versions": report.versions,
    }


def _of_data(spec: DataSpec, task: str) -> str:
    """What a task's cell says of the data: how many of its episodes succeed, or their median return."""
    if task not in spec.task_names:
        return "-"
    place = spec.task_names.index(task)
    if task in spec.returns_only:
        return RETURN.text(spec.return_quantiles[place][10])
    return SUCCESS.text(spec.success_rate[place], space=" ")


def _success_of_data(spec: DataSpec) -> float | None:
    """Mean over tasks with success of how many recorded episodes succeed; None if there are none."""
    rates = [
        rate for name, rate in zip(spec.task_names, spec.success_rate, strict=True) if name not in spec.returns_only
    ]
    return sum(rates) / len(rates) if rates else None


def _left_out(fault: object) -> None:
    warnings.warn(f"{fault} It is left out.", DamageWarning, stacklevel=3)


def _pictures(
    entries: Sequence[RunEntry],
    kind: type[ConflictsEntry | RoutingEntry | RelationsEntry],
    draw: Callable[[RunEntry], Any],
) -> list[tuple[str, str]]:
    """A picture for each run whose log has such entries, and of its own tasks."""
    drawn = []
    parts = [part for one in entries for part in one.parts if part is one or len(part.task_names) > 1]
    for entry in parts:  # tasks of a model of their own have nobody to be compared to
        records = entry.log.of(kind)
        others = {task for row in records for task in row.tasks} - {*entry.task_names}
        if others:
            _left_out(
                f"{entry.run.folder / 'log.jsonl'}: {kind.kind} are those of other tasks, {', '.join(sorted(others))}."
            )
        elif records:
            drawn.append((entry.name, picture(draw(entry))))
    return drawn


def _measured_conflicts(entries: Sequence[RunEntry], checkpoint: str) -> list[tuple[str, Conflicts, str]]:
    """What `mtorl conflicts` found of each run that it was asked about, with a picture."""
    measured = []
    for entry in entries:
        try:
            found = kept_conflicts(entry.run, checkpoint)
        except InputError as error:
            _left_out(error)
            continue
        if found:
            measured.append((entry.name, found, picture(draw_measured(found))))
    return measured


def _machine(run: Run) -> Document:
    """Where the run was begun, as far as that can be read."""
    try:
        return run.machine()
    except InputError as error:
        _left_out(error)
        names = ("mtorl", "python", "platform", "processors")
        return {**dict.fromkeys(names, "unknown"), "versions": {}, "command": []}


def _parameters(run: Run) -> tuple[int, int] | None:
    """How many parameters its agent has, and how many of them only training needs, as far as it can be built."""
    try:
        agent = run.configuration.experiment().build_agent(run.spec)
    except InputError as error:
        _left_out(error)
        return None
    sizes = {name: value.numel() for name, value in agent.named_parameters()}
    return sum(sizes.values()), sum(sizes[name] for name in agent.training_only())
