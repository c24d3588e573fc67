"""Arrays in .npz files, under whatever names they have there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtorl import InputError, checks
from mtorl.datasets.card import Card
from mtorl.datasets.episode import Episode
from mtorl.datasets.importers import flat
from mtorl.datasets.importers.archives import open_npz
from mtorl.datasets.importers.base import Contents, Importer, check_alike
from mtorl.datasets.importers.folders import listed
from mtorl.datasets.importers.npz_layout import (
    ROLES,
    Choice,
    Layout,
    Role,
    Rows,
    count_ends,
    ends_of,
    episodes_of,
    layout_of,
)
from mtorl.datasets.importers.raw_episodes import check_following, cleaned


class Npz(Importer):
    """Arrays in .npz files: of one task each, or a folder of files for each task.

    A file with flags where episodes end (`terminals` or `dones`, `timeouts`) holds episodes one after the other; a file
    without holds one. Files of OGBench (`observations`, `actions` and `terminals` alone) are recognised, and read as
    its own loader does; what `mtorl export npz` has written becomes the same data set again.

    Args:
        keys: Names of the arrays, where they are not the usual ones: `{observations: obs, rewards: reward}`. An empty
            name leaves rewards, flags or next observations out; without rewards they are 0.
        layout: `steps`: every row is a step. `ogbench`: the last row of an episode is a state alone. `auto`: what the
            files look like.
        tasks: Names of the tasks, one for each file or folder that is given; the same name again adds to that task. By
            default the names of files and folders.
        clip_actions: Set actions beyond [-1, 1] on the bound; otherwise they are refused.
    """

    def __init__(
        self,
        keys: dict[str, str] | None = None,
        layout: Choice = "auto",
        tasks: list[str] | None = None,
        clip_actions: bool = False,
    ) -> None:
        checks.one_of("layout", layout, Choice)
        for name in keys or {}:
            checks.one_of("a name in keys", name, ROLES)
        self.keys: Mapping[Role, str] = {role: (keys or {})[role] for role in ROLES if role in (keys or {})}
        self.layout, self.tasks, self.clip_actions = layout, tasks, clip_actions

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the ending of its name, or of names in it."""
        try:
            if path.is_file():
                return path.suffix == ".npz"
            return any(any(path.glob(names)) for names in ("*.npz", "*/*.npz"))
        except (OSError, ValueError):
            return False

    def contents(self, paths: Sequence[Path]) -> Contents:
        """One task for each file, folder, or folder in it."""
        groups = _groups(paths)
        exported = _exported(groups)
        if exported:
            return flat.contents(open_npz, exported)
        found = self._tasks(groups)
        summaries = [self._summary(name, files) for name, files in found.items()]
        first = summaries[0]
        check_alike([it.task for it in summaries], [it.layout.dimensions for it in summaries])
        empty = [it for it in summaries if not it.episodes]
        if empty:
            raise InputError(
                f"{found[empty[0].task][0]}: every episode of {empty[0].task} is a state without a step in the layout "
                "of OGBench; expected at least one step. If every row is a step, say --layout steps."
            )
        return Contents(
            tuple(found),
            *first.layout.dimensions,
            Card(f"arrays of {', '.join(path.name for path in paths)}", notes=_notes(summaries)),
            returns_only=tuple(it.task for it in summaries if "success" not in it.layout.keys),
            episodes=sum(it.episodes for it in summaries),
        )

    def episodes(self, paths: Sequence[Path]) -> Iterator[Episode]:
        """In the order of the paths; of the files in a folder, in the order of their numbers."""
        groups = _groups(paths)
        exported = _exported(groups)
        if exported:
            yield from flat.episodes(open_npz, exported)
            return
        for task, files in self._tasks(groups).items():
            first = self._layout(files[0])
            for path in files:
                yield from self._episodes_of(task, path, first)

    def _episodes_of(self, task: str, path: Path, first: Layout) -> Iterator[Episode]:
        """The episodes of a file, whose arrays have to be those of its task's first file."""
        with open_npz(path) as archive:
            layout = layout_of(archive, self.keys, self.layout)
            for name in ("kind", "keys", "dimensions"):
                other, expected = getattr(layout, name), getattr(first, name)
                if other != expected:
                    raise InputError(
                        f"{path}: its {name} {other} differ from those of the first file of {task}, {expected}. Import "
                        "files of one kind together."
                    )
            number = 0
            for rows in episodes_of(archive, layout):
                where = f"{path}, episode {number}"
                episode = _episode(task, rows, layout, where)
                if episode is not None:
                    yield cleaned(episode, where, self.clip_actions)
                    number += 1

    def _tasks(self, groups: Sequence["_Files"]) -> dict[str, list[Path]]:
        """The files of each task."""
        if self.tasks is not None and len(self.tasks) != len(groups):
            raise InputError(f"--tasks names {len(self.tasks)} tasks; expected one for each of {len(groups)} paths.")
        found: dict[str, list[Path]] = {}
        for place, parts in enumerate(groups):
            if self.tasks is not None:
                found.setdefault(self.tasks[place], []).extend(file for files in parts.values() for file in files)
                continue
            twice = [name for name in parts if name in found]
            if twice:
                raise InputError(f"two of the paths make the task {twice[0]!r}. Name them with --tasks.")
            found |= parts
        return found

    def _layout(self, path: Path) -> Layout:
        with open_npz(path) as archive:
            return layout_of(archive, self.keys, self.layout)

    def _summary(self, task: str, files: Sequence[Path]) -> "_Summary":
        layout = self._layout(files[0])
        if layout.kind == "file":
            return _Summary(task, layout, len(files), ())
        episodes, unfinished = 0, []
        for path in files:
            with open_npz(path) as archive:
                count, finished = count_ends(archive, layout_of(archive, self.keys, self.layout))
            episodes += count
            unfinished += [] if finished else [path.name]
        return _Summary(task, layout, episodes, tuple(unfinished))


@dataclass(frozen=True)
class _Summary:
    """What is known of a task: how its first file is laid out, and which files do not end with an end."""

    task: str
    layout: Layout
    episodes: int
    unfinished: tuple[str, ...]


_Files = dict[str, list[Path]]
"""The files of each task."""


def _groups(paths: Sequence[Path]) -> list[_Files]:
    """What each path stands for."""
    return [_folder(path) if path.is_dir() else {path.stem: [path]} for path in paths]


def _folder(folder: Path) -> _Files:
    """The files of each task in a folder: its own, or those of the folders in it."""
    found = listed(folder, folder)
    files = [path for path in found if path.suffix == ".npz"]
    if files:
        return {folder.resolve().name: files}
    inner = {
        path.name: [file for file in listed(path, folder) if file.suffix == ".npz"] for path in found if path.is_dir()
    }
    tasks = {name: files for name, files in inner.items() if files}
    if not tasks:
        raise InputError(f"{folder} holds no .npz files, nor do the folders in it. Check the path.")
    return tasks


def _exported(groups: Sequence[_Files]) -> list[Path]:
    """All files, if they are of our own exports, which know their tasks themselves; otherwise none."""
    every = [files for group in groups for files in group.values()]
    known = flat.are_exported(open_npz, [files[0] for files in every])
    return [path for files in every for path in files] if known else []


def _episode(task: str, rows: Rows, layout: Layout, where: str) -> Episode | None:
    """An episode of its rows; None: it is a state without a step."""
    observations, finished = rows["observations"], bool(ends_of(rows)) if layout.kind != "file" else False
    if layout.kind == "ogbench":
        rows = {role: values[:-1] for role, values in rows.items()}
    steps = len(rows["actions"])
    if not steps:
        return None
    if "next_observations" in rows:
        following = rows["next_observations"]
        check_following(rows["observations"][:steps], following, where)
        observations = np.concatenate([rows["observations"][:steps], following[-1:]])
    elif len(observations) == steps:
        observations = np.concatenate([observations, observations[-1:]])
    none, last = np.zeros(steps, dtype=np.bool_), np.arange(steps) == steps - 1
    terminated = rows.get("terminals", none) if layout.kind == "steps" else none
    truncated = rows.get("timeouts", none) if layout.kind == "steps" and finished else last
    return Episode(
        task,
        observations,
        rows["actions"],
        rows.get("rewards", np.zeros(steps, dtype=np.float32)),
        rows.get("success", none),
        terminated,
        truncated,
    )


def _notes(summaries: Sequence[_Summary]) -> tuple[str, ...]:
    """What users of the data should know, a sentence each."""

    def names(chosen: Sequence[_Summary]) -> str:
        return "" if len(chosen) == len(summaries) else f" of {', '.join(it.task for it in chosen)}"

    notes = []
    unused = list(dict.fromkeys(key for it in summaries for key in it.layout.unused))
    if unused:
        notes.append(f"Not read of the files: {', '.join(unused)}.")
    without = [it for it in summaries if "rewards" not in it.layout.keys]
    if without:
        notes.append(f"The files{names(without)} hold no rewards; all are 0.")
    states = [it for it in summaries if it.layout.kind == "ogbench"]
    if states:
        notes.append(f"The last row of each episode{names(states)} is its last state, as in OGBench's own loader.")
    blind = [it for it in summaries if it.layout.kind == "steps" and "next_observations" not in it.layout.keys]
    if blind:
        notes.append(
            f"The files{names(blind)} do not hold what follows the last step of an episode; the last "
            "observation stands in its place."
        )
    notes += [
        f"The last episode of {name} has no end there; it is stored as cut off."
        for it in summaries
        for name in it.unfinished
    ]
    return tuple(notes)
