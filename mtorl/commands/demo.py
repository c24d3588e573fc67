"""See it work: record Meta-World's MT10, train one policy, play it on new goals, write the report."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mtorl import InputError
from mtorl.files import read_json, write_json
from mtorl.schema import Document

if TYPE_CHECKING:
    from mtorl.envs.base import Suite
    from mtorl.envs.protocol import Protocol

PRESET = "bc_mt10.yaml"
DONE = "demo.json"


def run(arguments: list[str]) -> None:
    """Runs the command."""
    from mtorl.commands.base import objects, parser_of

    options = objects(parser_of("demo", demo), arguments)
    try:
        demo(**options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt from None  # training's words name another command


def demo(
    out: str = "mtorl-demo",
    episodes: int = 40,
    steps: int = 3000,
    goals: int = 10,
    tasks: list[str] | None = None,
    store: str | None = None,
    run: str | None = None,
    references: str | None = None,
    workers: int = 2,
    quiet: bool = False,
) -> Path:
    """Shows the whole way in a minute or two: data, training, evaluation, report.

    Interrupted at any moment, the same command continues; finished, it says where the report is.

    Args:
        out: Folder for all of it: data, run, references, and the report.
        episodes: Recorded episodes of every task.
        steps: Training steps.
        goals: Goals of every task that the policy has never seen, one episode each.
        tasks: Meta-World's names of the tasks, instead of the ten of MT10.
        store: Folder of the data; `data` in that of the demo by default.
        run: Folder of the run; `run` in that of the demo by default.
        references: Folder of what the scripted expert and random actions reach; `references` by default.
        workers: Processes that play episodes; 0 plays in this one.
        quiet: Show no progress.

    Returns:
        The report.

    Raises:
        InputError: The folder holds a demo with other options.
    """
    folder = Path(out)
    places = _Places(
        Path(store or folder / "data"),
        Path(run or folder / "run"),
        Path(references or folder / "references"),
        folder / "report.html",
    )
    asked: Document = {"episodes": episodes, "steps": steps, "goals": goals, "tasks": tasks}
    if (kept := _finished(folder / DONE, asked, places)) is None:
        kept = _play(places, asked, workers, quiet)
        write_json(folder / DONE, {"options": asked, "mean_success": kept})
    else:
        print(f"{folder} is finished; nothing was done again. Another --out begins a new demo.")
    print(f"mean success: {kept:.1%} on goals that the policy has never seen")
    print(f"report: {places.report} and {places.report.with_suffix('.json')}")
    return places.report


class _Places(NamedTuple):
    """Where the parts of a demo are."""

    data: Path
    run: Path
    references: Path
    report: Path


def _finished(file: Path, asked: Document, places: _Places) -> float | None:
    """The mean success of a finished demo with these options; None if something of it is missing."""
    there = (places.data / "manifest.json", places.run / "config.yaml", places.report)
    if not all(path.exists() for path in (file, *there)):
        return None
    try:
        kept = read_json(file, "what a demo keeps")
    except InputError:  # it is written again
        return None
    same = isinstance(kept, dict) and kept.get("options") == asked and isinstance(kept.get("mean_success"), float)
    return float(kept["mean_success"]) if same else None


def _play(places: _Places, asked: Document, workers: int, quiet: bool) -> float:
    """Does what is not done yet; returns the mean success."""
    from mtorl import checks
    from mtorl.envs.collect import collect
    from mtorl.envs.metaworld import MetaWorld
    from mtorl.envs.protocol import Protocol
    from mtorl.reports.run_report import report
    from mtorl.reports.tables import show_store

    checks.at_least(1, episodes=asked["episodes"], steps=asked["steps"], goals=asked["goals"])
    checks.at_least(0, workers=workers)
    names = asked["tasks"]
    suite = MetaWorld(tasks=names) if names else MetaWorld("MT10")
    named = ["--suite", "MetaWorld", *(["--suite.tasks", *names] if names else ["--suite.benchmark", "MT10"])]
    protocol = Protocol("heldout", goals=asked["goals"])
    _refuse_another(places.run, asked["steps"])
    count = f"{asked['episodes']}"
    _say("collect", *named, "--recipe", "expert", "--episodes", count, "--out", str(places.data))
    show_store(collect(suite, places.data, "expert", asked["episodes"], workers=workers, quiet=quiet))
    _train(places, asked["steps"], workers, quiet)
    _evaluate(places, suite, protocol, lambda policy: ["--policy", policy, *named], workers, quiet)
    _say("report", str(places.run), "--references", str(places.references), "--out", str(places.report))
    report(places.run, places.report, goals=protocol.goals, references=places.references)
    return float(read_json(places.report.with_suffix(".json"), "the report")["mean_success"])


def _refuse_another(folder: Path, steps: int) -> None:
    """Raises InputError for a run of another length: its report would not be what was asked for."""
    from mtorl.runs.run import Run

    if (folder / "config.yaml").exists():
        there = Run(folder).configuration.plain["schedule"]["steps"]
        if there != steps:
            raise InputError(
                f"{folder} holds a run of {there} steps; asked for were {steps}. Say --steps {there}, or another --out."
            )


def _train(places: _Places, steps: int, workers: int, quiet: bool) -> None:
    """Trains, or continues."""
    from importlib.resources import as_file, files

    from mtorl.runs.configuration import Configuration
    from mtorl.runs.run import Run
    from mtorl.runs.training import continue_run, start

    how = [f"--workers={workers}", f"--quiet={str(quiet).lower()}"]
    if (places.run / "config.yaml").exists():
        _say("train", "--resume", str(places.run))
        continue_run(Run(places.run), how)
        return
    with as_file(files("mtorl.configs") / PRESET) as preset:
        words = ["--config", str(preset), "--data", str(places.data), "--schedule.steps", f"{steps}"]
        words += ["--out", str(places.run)]
        _say("train", *words)
        start(Configuration.parse([*words, *how]), ["mtorl", "train", *words])


def _evaluate(
    places: _Places,
    suite: "Suite",
    protocol: "Protocol",
    reference: Callable[[str], list[str]],
    workers: int,
    quiet: bool,
) -> None:
    """Plays the policy, the scripted expert and random actions, as far as that was not done, and prints the tables."""
    from mtorl.envs.references import evaluate_references
    from mtorl.reports.evaluation_table import show_report
    from mtorl.reports.settings import report_of
    from mtorl.runs.run import Run

    how = ["--protocol", protocol.name, "--goals", f"{protocol.goals}"]
    _say("evaluate", str(places.run), *how)
    try:
        show_report(report_of(places.run, protocol))
    except InputError:  # it was not played yet
        show_report(Run(places.run).evaluate(protocol, workers=workers, quiet=quiet))
    _say("evaluate", *reference("expert"), *how, "--out", str(places.references))
    _say("evaluate", *reference("random"), *how, "--out", str(places.references))
    for played in evaluate_references(suite, protocol, places.references, workers, quiet):
        show_report(played)


def _say(*words: str) -> None:
    """Shows the command that does the same, as a shell would take it."""
    print(f"\n$ {shlex.join(['mtorl', *words])}", flush=True)
