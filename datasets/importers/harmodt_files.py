"""Where the episodes of Meta-World's tasks stand in the archives of HarmoDT and MTDiff.

| place | content |
|---|---|
| `<root>/<task>/<i>.npz` | HarmoDT: one episode a file, i = 0, 1, 2 ... in the order in which they were recorded |
| `<root>/<task>/<any>/dataset/<i>.npz` | MTDiff: the same, in the only folder there |
| `<task>_prompt.npy` | both: a pickled array of dicts, one for each of a few episodes |

A path may be the root, one task's folder, or a file of the last kind.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtorl import InputError
from mtorl.datasets.importers.folders import listed

PROMPT = "_prompt.npy"
"""How the names of pickled files end."""


@dataclass(frozen=True)
class TaskFiles:
    """The files of one task.

    Attributes:
        task: Its name in Meta-World v3.
        files: In their order; a pickled one stands alone.
    """

    task: str
    files: tuple[Path, ...]

    @property
    def pickled(self) -> bool:
        """Whether it is a file of several episodes, and no folder of them."""
        return self.files[0].name.endswith(PROMPT)

    @property
    def missing(self) -> int:
        """How many numbers are left out between the first file, which is to be 0, and the last."""
        return 0 if self.pickled else int(self.files[-1].stem) + 1 - len(self.files)


def find_tasks(paths: Sequence[Path]) -> tuple[list[TaskFiles], list[Path]]:
    """All tasks in the paths, in their order, and what was found beside them.

    Raises:
        InputError: There is none, or there are two places with the same task.
    """
    tasks: list[TaskFiles] = []
    others: list[Path] = []
    for path in paths:
        found = _task(path, path)
        if found:
            tasks.append(found)
            continue
        inner = [(child, _task(child, path)) for child in (listed(path, path) if path.is_dir() else [])]
        if not any(task for _, task in inner):
            raise InputError(
                f"{path} holds no episodes in the layout of HarmoDT or MTDiff; expected <task>/<number>.npz, "
                f"<task>/<folder>/dataset/<number>.npz or <task>{PROMPT}. Name the folder of the tasks' folders."
            )
        tasks += [task for _, task in inner if task]
        others += [child for child, task in inner if not task]
    names = [it.task for it in tasks]
    for place, it in enumerate(tasks):
        first = names.index(it.task)
        if first < place:
            raise InputError(
                f"{tasks[first].files[0]} and {it.files[0]} are both of the task {it.task}. Import one of them, or "
                "each on its own."
            )
    return tasks, others


def looks_like_tasks(path: Path) -> bool:
    """Whether there seem to be such episodes; raises nothing."""
    try:
        if path.is_file():
            return path.name.endswith(PROMPT)
        inner = [path, *(child for child in path.iterdir() if child.is_dir())]
        numbered = any(file.stem.isdecimal() for folder in inner for file in folder.glob("*.npz"))
        return numbered or any(path.glob("*/*/dataset")) or any(path.glob(f"*{PROMPT}"))
    except OSError:
        return False


def _task(path: Path, root: Path) -> TaskFiles | None:
    """The task whose episodes a file or folder holds; None: it holds none."""
    name = path.resolve().name
    if path.is_file():
        return TaskFiles(_v3(name.removesuffix(PROMPT)), (path,)) if name.endswith(PROMPT) else None
    files = _numbered(path, root) or _numbered_in_only_folder(path, root)
    return TaskFiles(_v3(name), tuple(files)) if files else None


def _numbered(folder: Path, root: Path) -> list[Path]:
    found = [path for path in listed(folder, root) if re.fullmatch(r"[0-9]{1,9}\.npz", path.name)]
    return sorted(found, key=lambda path: int(path.stem))


def _numbered_in_only_folder(folder: Path, root: Path) -> list[Path]:
    inner = [path for path in listed(folder, root) if (path / "dataset").is_dir()]
    if len(inner) > 1:
        raise InputError(
            f"{folder} holds {len(inner)} folders with episodes, {inner[0].name} and {inner[1].name} among them; "
            "expected one. Name the one to import."
        )
    return _numbered(inner[0] / "dataset", root) if inner and listed(inner[0], root) else []


def _v3(name: str) -> str:
    """A task's name in today's Meta-World: the version at its end is another, the rest is the same for all tasks."""
    return re.sub(r"-v[12]$", "-v3", name)
