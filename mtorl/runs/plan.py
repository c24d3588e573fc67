"""What the runs of an ablation are: every combination of settings, and what each row is compared to."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mtorl import InputError

SEED, CONFIG = "seed", "config"
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
        options = _joined([part for _, part in chosen])
        labels = tuple(label for key, (label, _) in zip(vary, chosen, strict=True) if key != SEED)
        seed = options.get(SEED) if SEED in vary else None
        cell = Cell(labels, seed, options, out)
        name = _folder_name(cell.variant) + (f"-seed{seed}" if seed is not None else "")
        cells.append(replace(cell, folder=out / name))
    names = [cell.folder for cell in cells]
    double = sorted({str(name) for name in names if names.count(name) > 1})
    if double:
        raise InputError(f"several combinations would live in {', '.join(double)}; give their values distinct labels.")
    return cells


def _joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The options of several settings; files are laid over each other, all else is set once."""
    options: dict[str, Any] = {}
    for part in parts:
        double = sorted({*options} & {*part} - {CONFIG})
        if double:
            raise InputError(f"vary: {double} is set by two settings at once; set it in one of them.")
        files = [*options.get(CONFIG, []), *([part[CONFIG]] if CONFIG in part else [])]
        options |= {**part, **({CONFIG: files} if files else {})}
    return options


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


def _folder_name(label: str) -> str:
    """A label as the name of a folder."""
    return "".join(letter if letter.isalnum() or letter in "._+=" else "_" for letter in label)


def single_task_cell(label: str, options: Mapping[str, Any], task: str, seed: int | None, out: Path) -> Cell:
    """The run of a model of one task.

    Args:
        label: Its row in the comparison.
        options: What it changes of the base configuration.
        task: Name of the task.
        seed: Its seed, if seeds vary.
        out: Folder of the ablation.
    """
    own = {"tasks": [task], "tasks_per_batch": None, **({} if seed is None else {"seed": seed})}
    name = "single" if label == SINGLE else _folder_name(label)
    folder = out / (f"{name}-{_folder_name(task)}" + ("" if seed is None else f"-seed{seed}"))
    return Cell((label,), seed, {**options, **own}, folder, alone=True)


def compared_rows(cells: Sequence[Cell], baselines: Sequence[str]) -> dict[str, dict[str, str]]:
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
