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

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.spec import DataSpec, check_fits, open_stores
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.protocol import Protocol, ProtocolName, TaskVisibility
from mtorl.envs.references import References, evaluate_references
from mtorl.envs.results import EvalReport
from mtorl.envs.workers import WorkerPool
from mtorl.progress import Progress
from mtorl.runs.configuration import Configuration, command_line
from mtorl.runs.data import describe_data, suite_of
from mtorl.runs.run import Run
from mtorl.runs.training import train

SEED, CONFIG = "seed", "config"
DATA = (CONFIG, "data", "tasks")
"""Options that decide on what a run trains."""
SINGLE = "single-task models"


@dataclass(frozen=True)
class Cell:
    """One run of an ablation.

    Attributes:
        labels: Of all its settings but the seed.
        seed: Its seed, if seeds vary.
        options: What it changes of the base configuration, by the options' names; `config` is a list of files.
        folder: Where it lives.
        alone: A model of one task.
    """

    labels: tuple[str, ...]
    seed: int | None
    options: dict[str, Any]
    folder: Path
    alone: bool = False

    @property
    def variant(self) -> str:
        """Its row in the comparison."""
        return ", ".join(self.labels) or "base"


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
    """Trains and evaluates all combinations of settings and compares them in one HTML file.

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
    cells = plan(vary, Path(out))
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    seeds = list(dict.fromkeys(cell.seed for cell in cells))
    compared = _compared(cells, baselines or variants[:1])
    if not Path(base).is_file():
        raise InputError(f"no configuration {base}; expected a YAML file of `mtorl train`.")
    alone: dict[str, dict[str, Any]] = {SINGLE: {}} if single_tasks is True else single_tasks or {}
    if alone or heldout_data:
        spec = _describe(base)
        if heldout_data:
            check_fits(spec, EpisodeStore(heldout_data))
        for label, options in alone.items():
            cells += [_single(label, options, task, seed, Path(out)) for seed in seeds for task in spec.task_names]
            variants.append(label)
            compared = {
                name: {**rows, label: name if name in rows else label} for name, rows in compared.items()
            }  # models of the base alone have no counterpart in a setting
    references = None if stop_at_success else _references(base, cells, how, Path(out) / "references", workers, quiet)
    failures: dict[str, list[Path]] = {}
    with (
        WorkerPool(min(workers, len(cells))) as pool,
        Progress("training and evaluating", len(cells), "runs", quiet=quiet) as progress,
    ):
        jobs = ((base, cell, how, heldout_data) for cell in cells)
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
    methods = {
        variant: [[it.folder for it in cells if (it.variant, it.seed) == (variant, seed)] for seed in seeds]
        for variant in variants
    }
    return Sweep(Path(out), methods, how, compared, list(alone), heldout_data, references)


def _compared(cells: Sequence[Cell], baselines: Sequence[str]) -> dict[str, dict[str, str]]:
    """For each baseline, which row each row is compared to.

    Raises:
        InputError: No row and no setting has that label, or two settings have.
    """
    rows = {cell.variant: cell.labels for cell in cells}
    found = {}
    for name in baselines:
        places = {place for labels in rows.values() for place, label in enumerate(labels) if label == name}
        if name in rows:
            found[name] = dict.fromkeys(rows, name)
        elif len(places) == 1:
            place = places.pop()
            found[name] = {
                row: ", ".join((*labels[:place], name, *labels[place + 1 :])) for row, labels in rows.items()
            }
        elif places:
            raise InputError(f"baselines has {name!r}, which several settings have; name a row, or give other labels.")
        else:
            known = dict.fromkeys([*rows, *(label for labels in rows.values() for label in labels)])
            raise InputError(f"baselines has {name!r}; expected one of {', '.join(map(repr, known))}.")
    return found


def _describe(base: str, options: Mapping[str, Any] | None = None) -> DataSpec:
    """What the base configuration trains on, or a run that differs from it in some options."""
    changed = {"out": "unused", **(options or {})}
    chosen = Configuration.parse(command_line([base, *changed.pop(CONFIG, [])], changed)).options
    return describe_data(open_stores(chosen.data), chosen.tasks)


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
        suites[0].expert(0)
    except InputError:
        return None
    return evaluate_references(suites[0], protocol, folder, workers, quiet)


def _single(label: str, options: Mapping[str, Any], task: str, seed: int | None, out: Path) -> Cell:
    own = {"tasks": [task], "tasks_per_batch": None, **({} if seed is None else {"seed": seed})}
    name = "single" if label == SINGLE else _plain(label)
    folder = out / (f"{name}-{_plain(task)}" + ("" if seed is None else f"-seed{seed}"))
    return Cell((label,), seed, {**options, **own}, folder, alone=True)


def plan(vary: dict[str, list[Any]], out: Path) -> list[Cell]:
    """All combinations, the first setting outermost.

    Raises:
        InputError: A setting has no values, or two combinations would share a folder.
    """
    for key, values in vary.items():
        if not isinstance(key, str):
            raise InputError(f"vary has {key!r}; expected names of options of `mtorl train`.")
        if not isinstance(values, list) or not values:
            raise InputError(f"vary: {key} has {values!r}; expected a list with at least one value.")
    if not vary:
        raise InputError("vary is empty; expected options of `mtorl train`, each with a list of values.")
    axes = [[_label(key, value) for value in values] for key, values in vary.items()]
    cells = []
    for chosen in itertools.product(*axes):
        options: dict[str, Any] = {}
        for _, part in chosen:
            double = sorted({*options} & {*part} - {CONFIG})
            if double:
                raise InputError(f"vary: {double} is set by two settings at once; set it in one of them.")
            files = [*options.get(CONFIG, []), *([part[CONFIG]] if CONFIG in part else [])]
            options |= {**part, **({CONFIG: files} if files else {})}
        labels = tuple(label for key, (label, _) in zip(vary, chosen, strict=True) if key != SEED)
        seed = options.get(SEED) if SEED in vary else None
        cell = Cell(labels, seed, options, out)
        name = _plain(cell.variant) + (f"-seed{seed}" if seed is not None else "")
        cells.append(replace(cell, folder=out / name))
    names = [cell.folder for cell in cells]
    double = sorted({str(name) for name in names if names.count(name) > 1})
    if double:
        raise InputError(f"several combinations would live in {', '.join(double)}; give their values distinct labels.")
    return cells


def _label(key: str, value: Any) -> tuple[str, dict[str, Any]]:
    """A value's name and the options it sets."""
    if isinstance(value, dict):
        for part in ("options", "init_args"):
            if not (isinstance(given := value.get(part, {}), dict) and all(isinstance(it, str) for it in given)):
                raise InputError(f"vary: {key} has {part} {given!r}; expected names, each with a value.")
    if isinstance(value, dict) and set(value) == {"label", "options"}:
        return str(value["label"]), dict(value["options"])
    if isinstance(value, dict) and "class_path" in value:
        arguments = ", ".join(f"{name}={it}" for name, it in value.get("init_args", {}).items())
        short = str(value["class_path"]).rsplit(".", 1)[-1]
        return (f"{short}({arguments})" if arguments else short), {key: value}
    if key == CONFIG:
        if not isinstance(value, str):
            raise InputError(f"vary: config has {value!r}; expected names of files. Write them in quotes.")
        return Path(value).stem, {key: value}
    if isinstance(value, str):
        return value.rsplit(".", 1)[-1], {key: value}
    return f"{key.rsplit('.', 1)[-1]}={json.dumps(value)}", {key: value}


def _plain(label: str) -> str:
    """A label as the name of a folder."""
    return "".join(letter if letter.isalnum() or letter in "._+=" else "_" for letter in label)


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
    return path.exists() and EvalReport.load(path).source.get("sha256") == run.checkpoints().read()[1]
