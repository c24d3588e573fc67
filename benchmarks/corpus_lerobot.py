"""Data sets of LeRobot for `fuzz_importers.py`, in the layout of its writers, made with pyarrow alone."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from corpus import ELSEWHERE, SECRET, Arrays, Corpus, hostile_pickle, odd
from numpy.random import Generator

from mtorl.datasets.importers import LeRobot

SENTENCES = ("Push the puck to a goal", "assembly-v3", "Öffne die Tür")
MARKS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def episodes(draw: Generator, size: int = 5) -> list[Arrays]:
    """Arrays of a few short episodes."""
    found = []
    for number, length in enumerate(draw.integers(1, 9, draw.integers(1, 5))):
        found.append(
            {
                "observation.state": draw.normal(size=(length, size)).astype(np.float32),
                "action": draw.uniform(-1, 1, (length, 2)).astype(np.float32),
                "next.reward": draw.normal(size=length).astype(np.float32),
                "next.success": np.arange(length) == length - 1,
                "next.done": np.arange(length) == length - 1,
                "frame_index": np.arange(length),
                "task_index": np.full(length, number % len(SENTENCES)),
            }
        )
    return numbered(found)


def numbered(found: list[Arrays]) -> list[Arrays]:
    """With the indices of episodes and rows."""
    first = 0
    for number, it in enumerate(found):
        rows = len(it["frame_index"])
        it |= {"episode_index": np.full(rows, number), "index": np.arange(first, first + rows)}
        it |= {"timestamp": (it["frame_index"] / 80).astype(np.float32)}
        first += rows
    return found


def typed(values: Any, fixed: bool = True) -> Any:
    """A column as LeRobot's writers type it; those that pandas wrote have lists of any length."""
    if not isinstance(values, np.ndarray):
        return values
    if values.ndim < 2:
        return pa.array(values)
    inner = pa.array(values.reshape(-1))
    if fixed and values.ndim == 2 and values.shape[1]:
        return pa.FixedSizeListArray.from_arrays(inner, values.shape[1])
    return pa.array(values.tolist(), type=None if values.ndim > 2 else pa.list_(inner.type))


def joined(found: list[Arrays]) -> Arrays:
    """The columns of several episodes."""
    return {name: np.concatenate([it[name] for it in found]) for name in found[0]}


def feature(values: Any) -> dict[str, Any]:
    """As meta/info.json says it."""
    values = np.asarray(values)
    return {"dtype": values.dtype.name, "shape": list(values.shape[1:]) or [1], "names": None}


def write_meta(folder: Path, found: list[Arrays], version: str, **said: Any) -> None:
    """What is beside the rows; `said` is what meta/info.json says beside the usual."""
    (folder / "meta").mkdir()
    old = version.startswith("v2")
    features = {name: feature(values) for name, values in found[0].items()}
    features["observation.image"] = {"dtype": "video", "shape": [48, 48, 3], "names": ["height", "width", "channel"]}
    name = "episode_{episode_index:06d}" if old else "file-{file_index:03d}"
    info = {
        "codebase_version": version,
        "robot_type": "sawyer",
        "total_episodes": len(found),
        "total_frames": sum(len(it["index"]) for it in found),
        "total_tasks": len(SENTENCES),
        "chunks_size": 1000,
        "fps": 80,
        "splits": {"train": f"0:{len(found)}"},
        "data_path": f"data/chunk-{{{'episode_chunk' if old else 'chunk_index'}:03d}}/{name}.parquet",
        "video_path": None,
        "features": features,
    }
    (folder / "meta/info.json").write_text(json.dumps(info | said))
    if old:
        lines = [json.dumps({"task_index": index, "task": text}) for index, text in enumerate(SENTENCES)]
        (folder / "meta/tasks.jsonl").write_text("\n".join(lines) + "\n")
        return
    write_tasks(folder, range(len(SENTENCES)), SENTENCES)
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    index = {"episode_index": range(len(found)), "length": [len(it["index"]) for it in found]}
    index |= {"tasks": [[SENTENCES[0]]] * len(found), "data/file_index": [0] * len(found)}
    pq.write_table(pa.table(index), folder / "meta/episodes/chunk-000/file-000.parquet")


def write_tasks(folder: Path, indices: Any, sentences: Any, name: str = "task") -> None:
    """meta/tasks.parquet, as pandas writes a frame with an index."""
    pandas = {"index_columns": [name], "columns": []}
    table = pa.table({"task_index": indices, name: sentences})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), folder / "meta/tasks.parquet")


def write_rows(path: Path, columns: dict[str, Any], stops: list[int], fixed: bool = True) -> None:
    """A file of rows with a row group for each episode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: typed(values, fixed) for name, values in columns.items()})
    with pq.ParquetWriter(path, table.schema, compression="snappy", use_dictionary=True) as writer:
        for start, stop in zip([0, *stops], stops, strict=False):
            writer.write_table(table.slice(start, stop - start))


def write(folder: Path, found: list[Arrays], version: str = "v3.0", fixed: bool = True, **said: Any) -> None:
    """Writes a data set: of v2 a file for each episode, of v3 two files."""
    write_meta(folder, found, version, **said)
    if version.startswith("v2"):
        for number, it in enumerate(found):
            path = folder / f"data/chunk-{number // 1000:03d}/episode_{number:06d}.parquet"
            write_rows(path, it, [len(it["index"])], fixed)
        return
    half = len(found) // 2
    for number, part in enumerate(filter(None, (found[:half], found[half:]))):
        stops = np.cumsum([len(it["index"]) for it in part]).tolist()
        write_rows(folder / f"data/chunk-000/file-{number:03d}.parquet", joined(part), stops, fixed)


def current(folder: Path, draw: Generator) -> None:
    """As LeRobot writes them today."""
    write(folder, episodes(draw))


def converted(folder: Path, draw: Generator) -> None:
    """As those are that were converted from v2.1, by way of pandas."""
    write(folder, episodes(draw), fixed=False)
    write_tasks(folder, range(len(SENTENCES)), SENTENCES, "__index_level_0__")


def earlier(folder: Path, draw: Generator) -> None:
    """Of v2.1, without success."""
    found = episodes(draw)
    for it in found:
        del it["next.success"]
    write(folder, found, "v2.1")


def columns_of(folder: Path, draw: Generator, change: Callable[[Arrays], Any]) -> None:
    """A data set in one file whose columns are changed in some way."""
    found = episodes(draw)
    write_meta(folder, found, "v3.0")
    columns = joined(found)
    columns = change(columns) or columns
    write_rows(folder / "data/chunk-000/file-000.parquet", columns, [len(next(iter(columns.values())))])


def odd_arrays(folder: Path, draw: Generator) -> None:
    """A column is odd, as far as Parquet can hold it."""

    def change(columns: Arrays) -> Arrays:
        changed = odd(columns, draw)
        rows = len(columns["index"])
        kept = {name: it for name, it in changed.items() if np.ndim(it) and np.asarray(it).dtype.kind in "biuf"}
        kept = {name: np.asarray(it).astype(np.asarray(it).dtype.newbyteorder("=")) for name, it in kept.items()}
        kept = {name: it.astype(np.float64) if it.dtype == np.longdouble else it for name, it in kept.items()}
        return {name: np.resize(it, (rows, *it.shape[1:])) if len(it) else it[:0] for name, it in kept.items()}

    def even(columns: Arrays) -> Arrays:
        found = change(columns)
        rows = min(len(it) for it in found.values())
        return {name: it[:rows] for name, it in found.items()}

    columns_of(folder, draw, even)


def odd_types(folder: Path, draw: Generator) -> None:
    """A column is of a type that is not read, or has missing values, or rows of other lengths."""

    def change(columns: Arrays) -> None:
        name = str(draw.choice([name for name in columns if name != "timestamp"]))
        rows = len(columns["index"])
        short, none = [[1.0]] + [[1.0, 2.0]] * (rows - 1), [None] + [1.0] * (rows - 1)
        values = [
            pa.array(["x"] * rows).dictionary_encode(),
            pa.array([1.5] * rows).dictionary_encode(),
            pa.array([{"bytes": b"x", "path": "/etc/passwd"}] * rows),
            pa.array([[[1.0]]] * rows),
            pa.array(["x"] * rows),
            pa.array([b"x"] * rows),
            pa.array(short),
            pa.array(none),
            pa.array([[1.0, None]] * rows),
            pa.array([None] * rows),
            pa.array([None] * rows, pa.list_(pa.float32(), 3)),
            pa.array([1] * rows, pa.decimal128(5)),
            pa.array([1] * rows, pa.timestamp("us")),
            pa.array([2**64 - 1] * rows, pa.uint64()),
            pa.array([[]] * rows, pa.list_(pa.float32())),
            pa.array([[1.0, 2.0]] * rows, pa.large_list(pa.float16())),
            pa.FixedShapeTensorArray.from_numpy_ndarray(np.ones((rows, 2), np.float32)),
        ]
        columns[name] = values[draw.integers(len(values))]

    columns_of(folder, draw, change)


def odd_order(folder: Path, draw: Generator) -> None:
    """Indices of episodes, steps or tasks are wrong."""

    def change(columns: Arrays) -> None:
        name = str(draw.choice(["episode_index", "frame_index", "task_index"]))
        values = columns[name].copy()
        kind = draw.integers(5)
        if kind == 0:
            values[draw.integers(len(values))] += draw.choice([-1, 1, 2**40, -(2**62)])
        elif kind == 1:
            values = draw.permutation(values)
        elif kind == 2:
            values = values + draw.choice([-1, 3, 2**61])
        elif kind == 3:
            values = values[::-1].copy()
        else:
            values = values.astype(np.float64) * 0.5
        columns[name] = values

    columns_of(folder, draw, change)


def odd_info(folder: Path, draw: Generator) -> None:
    """A field of meta/info.json is something else."""
    found = episodes(draw)
    state = {"observation.state": {"dtype": "float32", "shape": [5]}}
    image = {"observation.image": {"dtype": "video", "shape": [9, 9, 3]}, "action": {"dtype": "float32", "shape": [2]}}
    values = [None, 0, -1, 2**70, 1e400, "", "v1.0", "v3.9", "v4.0", [], {}, [[]], True, state, image, "x" * 10_000]
    values += ["../../elsewhere/x.parquet", {"observation.state": 3}, {"": {"dtype": "x", "shape": [-1]}}]
    name = str(draw.choice(["codebase_version", "features", "total_episodes", "total_tasks", "fps", "robot_type"]))
    write(folder, found, **{name: values[draw.integers(len(values))]})


def odd_tasks(folder: Path, draw: Generator) -> None:
    """The table of tasks is strange."""
    write(folder, episodes(draw))
    long = ["x" * 1000] * 40_000
    tables: list[tuple[Any, Any]] = [
        ([0, 0], ["a", "b"]),
        ([0, 1], ["a b", "a-b"]),
        ([7], ["x"]),
        ([], pa.array([], pa.string())),
        ([0.0, 1.0], ["a", "b"]),
        ([-5, 2**62], ["a", "b"]),
        (list(range(len(long))), long),
        ([0, 1, 2], [None, "b", "c"]),
        ([0, 1, 2], [b"\xff", b"b", b"c"]),
        ([[0], [1], [2]], ["a", "b", "c"]),
        ([0, 1, 2], ["", "\n", "../../x"]),
        ([0, 1, 2], pa.array(["a", "b", "c"]).dictionary_encode()),
    ]
    write_tasks(folder, *tables[draw.integers(len(tables))])


def pickled(folder: Path, draw: Generator) -> None:
    """A type is pickled, and would run code when it is loaded, in one of the files."""
    content = hostile_pickle(folder) if draw.random() < 0.5 else pickle.dumps(float)
    marks = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": content}
    write(folder, episodes(draw))
    path = folder / str(draw.choice(["meta/tasks.parquet", "data/chunk-000/file-000.parquet"]))
    if not path.exists():
        path = folder / "meta/tasks.parquet"
    table = pq.read_table(path)
    place = int(draw.integers(len(table.schema)))
    schema = table.schema.set(place, table.schema.field(place).with_metadata(marks))
    pq.write_table(table.cast(schema), path)


def bomb(folder: Path, draw: Generator) -> None:
    """Much more than the file's size."""
    write_meta(folder, episodes(draw), "v3.0")
    kind, rows = draw.integers(4), 2_000_000
    one = np.zeros(1, np.int64)
    columns: Arrays = {name: one for name in ("episode_index", "task_index", "frame_index", "index")}
    columns |= {"observation.state": np.zeros((1, 5), np.float32), "action": np.zeros((1, 2), np.float32)}
    columns |= {"next.reward": np.zeros(1, np.float32)}
    if kind == 0:  # one episode without an end
        columns = {name: np.zeros((rows, *it.shape[1:]), it.dtype) for name, it in columns.items() if it.ndim < 2}
        columns["frame_index"] = np.arange(rows)
        columns |= {"observation.state": np.zeros(rows, np.float32), "action": np.zeros(rows, np.float32)}
    elif kind == 1:  # one row without an end
        columns["action"] = pa.ListArray.from_arrays([0, 10 * rows], np.zeros(10 * rows, np.float32))
    elif kind == 2:
        columns |= {f"more{number}": one for number in range(11_000)}
    else:
        deep: Any = pa.array([1.0])
        for _ in range(90):
            deep = pa.ListArray.from_arrays([0, 1], deep)
        columns["action"] = deep
    path = folder / "data/chunk-000/file-000.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({name: typed(it) for name, it in columns.items()}), path, compression="zstd")


def linked(folder: Path, draw: Generator) -> None:
    """Something in the folder is a link out of it."""
    found = episodes(draw)
    for it in found:
        it["next.reward"][:] = SECRET
    write(folder, found)
    names = [
        "data",
        "meta",
        "meta/info.json",
        "meta/tasks.parquet",
        "data/chunk-000",
        "data/chunk-000/file-000.parquet",
    ]
    path = folder / str(draw.choice(names))
    outside = folder.parent / ELSEWHERE
    path.rename(outside)
    path.symlink_to(outside)


CORPUS = Corpus(
    LeRobot,
    [current, converted, earlier],
    [odd_arrays, odd_types, odd_order, odd_info, odd_tasks, pickled, bomb, linked, odd_types, odd_order],
    lambda folder: [str(folder)],
    links=True,
)
