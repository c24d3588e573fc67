"""Many runs that differ in chosen settings: trained, evaluated and compared.

    base: configs/bc_mt10.yaml
    vary:
      balancer:
        - Equal
        - PCGrad
        - label: BayesAgg                      # a value of several options
          options: {balancer: BayesAgg, agent.output_heads: linear}
        - label: as in another file
          options: {config: configs/soft_modular_mt10.yaml}
      seed: [0, 1, 2]

Every combination is a run in a folder of its own. Runs that are finished are kept, interrupted ones continue, so the
same command can be given again at any time, also with more values.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.opening import check_fits, open_stores
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.engines import open_pool
from mtorl.envs.protocol import Protocol, ProtocolName, TaskVisibility
from mtorl.envs.references import References, evaluate_references
from mtorl.envs.results import EvalReport
from mtorl.progress import Progress
from mtorl.runs.configuration import Configuration, command_line
from mtorl.runs.data import describe_data, suite_of
from mtorl.runs.plan import CONFIG, SINGLE, Cell, compared_rows, plan, single_task_cell
from mtorl.runs.run import Run
from mtorl.runs.training import train

DATA = (CONFIG, "data", "union", "tasks")
"""Options that decide on what a run trains."""


@dataclass(frozen=True)
class Sweep:
    """Finished runs of an ablation, row by row.

    Attributes:
        folder: Of the ablation.
        methods: By the row's label, for each seed the folders of evaluated runs whose tasks together are all.
        protocol: How they were evaluated.
        baselines: By a label for the heading, which row each row is compared to, by their labels.
        single: The rows that consist of single-task models.
        heldout_data: Data set on which the errors of actions were measured, if they were.
        references: What returns are normalised with, if episodes were played to their end.
    """

    folder: Path
    methods: Mapping[str, Sequence[Sequence[Path]]]
    protocol: Protocol
    baselines: Mapping[str, Mapping[str, str]]
    single: Sequence[str] = ()
    heldout_data: str | None = None
    references: References | None = None


def ablate(
    base: str,
    vary: dict[str, list],
    out: str,
    protocol: ProtocolName = "heldout",
    goals: int = 25,
    stop_at_success: bool = True,
    task_identity: TaskVisibility = "shown",
    demonstrations: str | None = None,
    baselines: list[str] | None = None,
    heldout_data: str | None = None,
    single_tasks: bool | dict[str, dict[str, Any]] = False,
    workers: int = 2,
    quiet: bool = False,
) -> Sweep:
    """Trains and evaluates all combinations of settings; the command compares them in one HTML file.

    The same command continues an interrupted ablation, and adds what is missing to an extended one.

    Args:
        base: Configuration of `mtorl train` that all runs start from.
        vary: Options of `mtorl train`, each with a list of values. A value can also be `{label: ..., options: {...}}`,
            which sets several options, `config` among them: another file, laid over the base. Runs that differ only in
            the seed are one row of the comparison.
        out: Folder of the runs and the comparison.
        protocol: How runs are judged: official, heldout or ml45-like.
        goals: Goals per task.
        stop_at_success: End episodes at their first success: several times faster. Otherwise the comparison also has
            return-normalised scores: 0 is what random actions earn, 1 what the scripted expert does.
        task_identity: Tell policies which task they are in (shown), or not (hidden).
        demonstrations: A data set whose best episode of each task is shown to policies.
        baselines: What rows are compared to; the first row by default. Each is the label of a row, or of one setting's
            value: then every row is compared to the one that differs from it in that setting only.
        heldout_data: Also compare the policies' actions with those of this data set (collected with --split heldout):
            less noisy than success.
        single_tasks: Also train a model for each task alone with the base configuration and all seeds: one more row,
            and the standard gain over it (delta-m). Several rows are given by their labels, each with options that it
            changes, such as `{own statistics: {}, statistics of all tasks: {statistics: data}}`.
        workers: Runs at a time, one processor each.
        quiet: Show no progress.

    Returns:
        The finished runs, to be compared with `reports.comparison.compare`.

    Raises:
        InputError: Something is wrong with the settings, or runs failed: the others are finished first.
    """
    how = Protocol(protocol, goals, stop_at_success, task_identity=task_identity, demonstrations=demonstrations)
    if how.hides_tasks and heldout_data:
        raise InputError("heldout_data compares actions of policies that are told their task; leave it or this out.")
    if how.unseen_tasks and single_tasks:
        raise InputError("single_tasks trains a model for each task; of unseen tasks there is none. Leave it out.")
    folder, cells = Path(out), plan(vary, Path(out))
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    compared = compared_rows(cells, baselines or variants[:1])
    if not Path(base).is_file():
        raise InputError(f"no configuration {base}; expected a YAML file of `mtorl train`.")
    if heldout_data:
        check_fits(_describe(base), EpisodeStore(heldout_data))
    alone: dict[str, dict[str, Any]] = {SINGLE: {}} if single_tasks is True else single_tasks or {}
    tasks = _describe(base).task_names if alone else ()
    for label, changed in alone.items():
        cells += [single_task_cell(label, changed, task, seed, folder) for seed in seeds for task in tasks]
        # models of the base alone have no counterpart in a setting
        compared = {name: {**rows, label: name if name in rows else label} for name, rows in compared.items()}
    references = None if stop_at_success else _references(base, cells, how, folder / "references", workers, quiet)
    _run(base, cells, how, heldout_data, workers, quiet)
    methods = {
        variant: [[it.folder for it in cells if (it.variant, it.seed) == (variant, seed)] for seed in seeds]
        for variant in (*variants, *alone)
    }
    return Sweep(folder, methods, how, compared, list(alone), heldout_data, references)


def _run(
    base: str, cells: Sequence[Cell], protocol: Protocol, heldout_data: str | None, workers: int, quiet: bool
) -> None:
    """Makes sure that all runs are finished and judged.

    Raises:
        InputError: Some failed; names them with what went wrong.
    """
    failures: dict[str, list[Path]] = {}
    with (
        open_pool(min(workers, len(cells))) as pool,
        Progress("training and evaluating", len(cells), "runs", quiet=quiet) as progress,
    ):
        jobs = ((base, cell, protocol, heldout_data) for cell in cells)
        for cell, error in pool.run(_train_and_evaluate, jobs):
            if error:
                failures.setdefault(error, []).append(cell.folder)
            progress.advance(1, cell.folder.name)
    if failures:
        raise InputError(
            f"{sum(map(len, failures.values()))} of {len(cells)} runs failed; the others are finished. Mend the cause "
            "and give the same command again. "
            + " ".join(f"{', '.join(map(str, folders))}: {error}" for error, folders in failures.items())
        )


def _train_and_evaluate(base: str, cell: Cell, protocol: Protocol, heldout_data: str | None) -> tuple[Cell, str]:
    """Runs in a worker: makes sure that a run is finished and judged. Returns what went wrong, if something did."""
    options = {**cell.options, "out": str(cell.folder), "threads": 1, "workers": 0, "quiet": True}
    files = [base, *options.pop(CONFIG, [])]
    try:
        if (cell.folder / "config.yaml").exists():
            run = train(files, resume=cell.folder, **options)  # refused if the base has changed since
        else:
            run = train(files, **options)
        if not _evaluated(run, protocol):
            run.evaluate(protocol, workers=0, quiet=True)
        if heldout_data:
            run.action_errors(heldout_data)
    except InputError as error:
        return cell, str(error)
    except Exception as error:  # somebody's own balancer, memory: the others are to be finished
        return cell, f"{type(error).__name__}: {error}"
    return cell, ""


def _evaluated(run: Run, protocol: Protocol) -> bool:
    path = run.report_path(protocol)
    return path.exists() and EvalReport.load(path).source.sha256 == run.digest()


def _describe(base: str, options: Mapping[str, Any] | None = None) -> DataSpec:
    """What the base configuration trains on, or a run that differs from it in some options."""
    changed = {"out": "unused", **(options or {})}
    chosen = Configuration.parse(command_line([base, *changed.pop(CONFIG, [])], changed)).options
    return describe_data(open_stores(chosen.data, chosen.union), chosen.tasks)


def _references(
    base: str, cells: Sequence[Cell], protocol: Protocol, folder: Path, workers: int, quiet: bool
) -> References | None:
    """The expert and random actions in the suite of all runs; None if it has no expert.

    Raises:
        InputError: The runs are not all of one suite: their returns cannot be compared.
    """
    data = [{name: cell.options[name] for name in DATA if name in cell.options} for cell in cells]
    different = {json.dumps(it): it for it, cell in zip(data, cells, strict=True) if not cell.alone}
    suites = [suite_of(_describe(base, options)) for options in different.values()]
    if any(it.describe() != suites[0].describe() for it in suites):
        raise InputError(
            "the runs are of several suites, or of other tasks, whose returns cannot be compared. Leave "
            "stop_at_success on, or make an ablation for each suite."
        )
    try:
        for task in range(len(suites[0].task_names)):
            suites[0].expert(task)
    except InputError:
        return None
    return evaluate_references(suites[0], protocol, folder, workers, quiet)
