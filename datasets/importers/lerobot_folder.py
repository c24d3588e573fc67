"""The folder of a LeRobot data set: what it says of itself, looked through, and where its rows are.

| | v2.0, v2.1 | v3.0 |
|---|---|---|
| rows | `data/chunk-000/episode_000000.parquet`, one episode a file | `data/chunk-000/file-000.parquet`, many |
| tasks | `meta/tasks.jsonl` | `meta/tasks.parquet`, as pandas writes it |
| all the rest | `meta/info.json` | the same |

A task is a sentence; two tasks of the same sentence are one there.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.datasets.importers.folders import listed
from mtorl.datasets.importers.parquet_reader import ParquetReader
from mtorl.datasets.importers.texts import parse_json, read_text
from mtorl.schema import Document, Integer, ListOf, MappingOf, Nullable, Number, Record, Text, check

INFO = "meta/info.json"
FEATURE = Record({"dtype": Text(), "shape": ListOf(Integer(0))})
CONTENT = Record(
    {"codebase_version": Text(), "features": MappingOf(FEATURE)},
    optional={
        "total_episodes": Integer(0),
        "total_tasks": Integer(0),
        "fps": Nullable(Number(0)),
        "robot_type": Nullable(Text()),
    },
)
TASK = Record({"task_index": Integer(0), "task": Text()})
NAME_OF_TASK = ("task", "__index_level_0__")
"""The column with the sentences: the second is what pandas calls an index without a name."""
BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that every data set has, and that are about its rows."""
IMAGES = ("image", "video")
REMEDY = "Download the data set again."
VARIABLE, ROOT = "HF_LEROBOT_HOME", "~/.cache/huggingface/lerobot"


@dataclass(frozen=True)
class Folder:
    """A data set of LeRobot, before its rows are read.

    Attributes:
        path: Its folder.
        features: Kind and shape of every column, as it says.
        sentences: Of its tasks, by their indices.
        files: With its rows, in their order.
        announced: How many episodes and tasks it says that it has, by those words.
        facts: What else it says of itself, in words.
        licence: As its README.md says; None: it says nothing.
    """

    path: Path
    features: Mapping[str, tuple[str, tuple[int, ...]]]
    sentences: Mapping[int, str]
    files: tuple[Path, ...]
    announced: Mapping[str, int]
    facts: tuple[str, ...]
    licence: str | None

    @property
    def images(self) -> list[str]:
        """Its columns of images and videos."""
        return [name for name, (kind, _) in self.features.items() if kind in IMAGES]


def find_folder(word: str) -> Path:
    """The folder that a word of a command line stands for: itself, or a data set that LeRobot has downloaded.

    Raises:
        InputError: There is no such data set on this machine.
    """
    root = Path(os.environ.get(VARIABLE) or ROOT).expanduser()
    known = [path for path in (Path(word), root / word) if is_folder(path)]
    if not known:
        raise InputError(
            f"{word}: there is no data set of LeRobot, neither there nor in {root}; expected a folder with {INFO}. "
            "Nothing is downloaded from here: get it with `hf download`, and name its folder."
        )
    return known[0]


def is_folder(path: Path) -> bool:
    """Whether a data set of LeRobot seems to be there; raises nothing."""
    try:
        return (path / INFO).is_file()
    except (OSError, ValueError):
        return False


def read_folder(path: Path) -> Folder:
    """Reads what a data set says of itself.

    Args:
        path: Its folder.

    Raises:
        InputError: It is malformed, or of a version that is not read.
    """
    home = _home(path)
    meta = _inner(path, "meta", home)
    info, what = _inner(meta, "info.json", home), f"LeRobot data set {path}: its {INFO}"
    content = parse_json(read_text(info), what, REMEDY)
    check(content, CONTENT, what, REMEDY)
    version = content["codebase_version"]
    if not re.fullmatch(r"v(2\.[01]|3\.[0-9]+)", version):
        raise InputError(f"{what} says version {version[:40]!r}; expected v2.0, v2.1 or v3.0. Convert it with LeRobot.")
    old = version.startswith("v2")
    return Folder(
        path,
        {name: (it["dtype"], tuple(it["shape"])) for name, it in content["features"].items()},
        _old_tasks(_inner(meta, "tasks.jsonl", home)) if old else _tasks(_inner(meta, "tasks.parquet", home)),
        tuple(_files(path, home, "episode_" if old else "file-")),
        {name: content[f"total_{name}"] for name in ("episodes", "tasks") if f"total_{name}" in content},
        tuple(_facts(content)),
        _licence(path, home),
    )


def _home(path: Path) -> Path:
    """Where everything has to lie: the folder, or, in the cache of Hugging Face, the one with all its versions."""
    place = path.resolve()
    cached = place.parent.name == "snapshots" and (place.parent.parent / "blobs").is_dir()
    return place.parent.parent if cached else place


def _inner(folder: Path, name: str, home: Path) -> Path:
    """What a folder holds under a name; raises InputError if it is not there, or lies elsewhere."""
    found = next((path for path in listed(folder, home) if path.name == name), None)
    if found is None:
        raise InputError(f"{folder} holds no {name}; expected it there. {REMEDY}")
    return found


def _files(path: Path, home: Path, prefix: str) -> list[Path]:
    folder = _inner(path, "data", home)
    chunks = [it for it in listed(folder, home) if re.fullmatch(r"chunk-[0-9]{1,9}", it.name) and it.is_dir()]
    pattern = rf"{prefix}[0-9]{{1,9}}\.parquet"
    found = [it for chunk in chunks for it in listed(chunk, home) if re.fullmatch(pattern, it.name)]
    if not found:
        raise InputError(
            f"{folder} holds no rows; expected chunk-000/{prefix}000000.parquet or the like there. If only the videos "
            f"were downloaded, get the folder data as well."
        )
    return found


def _old_tasks(file: Path) -> dict[int, str]:
    lines = [line for line in read_text(file).splitlines() if line.strip()]
    entries = []
    for number, line in enumerate(lines, 1):
        entry = parse_json(line, f"{file}, line {number}", REMEDY)
        check(entry, TASK, f"{file}, line {number}", REMEDY)
        entries.append((entry["task_index"], entry["task"]))
    return _by_index(entries, file)


def _tasks(file: Path) -> dict[int, str]:
    with ParquetReader(file) as reader:
        columns = reader.columns()
        name = next((it for it in NAME_OF_TASK if columns.kinds.get(it) == "text"), None)
        if name is None:
            raise InputError(f"{file} has the columns {dict(columns.kinds)}; expected texts in `task`. {REMEDY}")
        sentences = reader.texts(name)
        indices = reader.read("task_index", 0, len(sentences))
    if indices.shape != (len(sentences),) or indices.dtype.kind not in "iu":
        raise InputError(f"{file}: task_index is no whole number for each of {len(sentences)} tasks. {REMEDY}")
    return _by_index([(int(index), text) for index, text in zip(indices, sentences, strict=True)], file)


def _by_index(entries: Sequence[tuple[int, str]], file: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for index, sentence in entries:
        if index in found:
            raise InputError(f"{file} gives the task {index} two names: {found[index][:80]!r}, {sentence[:80]!r}.")
        found[index] = sentence
    return dict(sorted(found.items()))


def _facts(content: Document) -> list[str]:
    words: dict[str, Any] = {"codebase_version": "{}", "robot_type": "robot {}", "fps": "{:g} steps a second"}
    return [text.format(content[name])[:100] for name, text in words.items() if content.get(name)]


def _licence(path: Path, home: Path) -> str | None:
    """From the first lines of its README.md, where data sets of Hugging Face say it."""
    file = next((it for it in listed(path, home) if it.name == "README.md" and it.is_file()), None)
    found = re.search(rb"(?m)^license: *([\w.\-]{1,40})$", read_text(file)[:4096]) if file else None
    return found[1].decode("ascii", "replace") if found else None
