"""Parquet files of strangers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtorl import InputError
from mtorl.datasets.importers.parquet_reader import ParquetReader

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def made(path: Path, groups: int = 1, **columns: Any) -> Path:
    table = pa.table(columns)
    pq.write_table(table, path, row_group_size=-(-len(table) // groups))
    return path


def failing(path: Path, name: str = "x", what: str = "read") -> str:
    with pytest.raises(InputError) as error, ParquetReader(path) as file:
        file.texts(name) if what == "texts" else file.read(name, 0, 3)
    assert str(path) in str(error.value)
    return str(error.value)


def test_values_of_every_kind(tmp_path: Path) -> None:
    rows = np.arange(30, dtype=np.float32).reshape(10, 3)
    columns = {
        "flags": np.arange(10) % 2 == 0,
        "small": np.arange(10, dtype=np.int8),
        "half": np.arange(10, dtype=np.float16),
        "fixed": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 3),
        "any.length": pa.array(list(rows)),
        "large": pa.array(rows.tolist(), pa.large_list(pa.float64())),
        "words": ["ü"] * 10,
    }
    with ParquetReader(made(tmp_path / "a.parquet", 4, **columns)) as file:
        found = file.columns()
        assert found.rows == 10
        kinds = ["numbers"] * 3 + ["rows"] * 3 + ["text"]
        assert found.kinds == dict(zip(columns, kinds, strict=True))
        for name in ("flags", "small", "half"):
            values = np.concatenate([file.read(name, start, start + 5) for start in (0, 5)])
            assert values.dtype == columns[name].dtype
            np.testing.assert_array_equal(values, columns[name])
        for name in ("fixed", "any.length", "large"):
            values = np.concatenate([file.read(name, *part) for part in ((0, 1), (1, 7), (7, 10))])
            np.testing.assert_array_equal(values, rows)
        assert file.texts("words") == ["ü"] * 10
        assert len(file.read("fixed", 0, 2)) == 2, "from the first row again"
        with pytest.raises(InputError, match="out of order"):
            file.read("fixed", 5, 6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda: pa.array(["a"] * 3).dictionary_encode(), "x holds dictionary<"),
        (lambda: pa.array([{"bytes": b"", "path": "x"}] * 3), "x holds struct<"),
        (lambda: pa.array([[[1.0]]] * 3), "x holds list<"),
        (lambda: pa.array([b"abc"] * 3), "x holds binary"),
        (lambda: pa.array(["a"] * 3), "x holds text"),
        (lambda: pa.array([1, 2, 3], pa.timestamp("us")), "x holds timestamp"),
        (lambda: pa.array([1.0, None, 3.0]), "x has missing values"),
        (lambda: pa.array([[1.0], None, [3.0]]), "x has missing values"),
        (lambda: pa.array([[1.0], [None], [3.0]]), "x has missing values"),
        (lambda: pa.array([[1.0], [2.0, 3.0], [4.0]]), "rows of different lengths"),
        (lambda: pa.array([[1.0, 2.0], [3.0, 4.0], []]), "rows of different lengths"),
    ],
)
def test_nothing_but_columns_of_numbers(tmp_path: Path, values: Any, message: str) -> None:
    assert message in failing(made(tmp_path / "a.parquet", x=values()))


def test_types_that_are_pickled(tmp_path: Path) -> None:
    marks = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": "cos\nsystem\n."}
    schema = pa.schema([pa.field("x", pa.float32(), metadata=marks)])
    pq.write_table(pa.table([pa.array([1.0, 2, 3], pa.float32())], schema=schema), tmp_path / "a.parquet")
    assert "it holds a type that is pickled, which could run code" in failing(tmp_path / "a.parquet")


def test_sizes_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "a.parquet", x=np.zeros(3_000_000))
    with ParquetReader(path) as file:
        assert not file.read("x", 0, 1_000_000).any()
        with pytest.raises(InputError, match="unpacks to more than 64 times its size"):
            for start in range(1_000_000, 3_000_000, 1_000_000):
                file.read("x", start, start + 1_000_000)
    assert "more than 16777216 characters" in failing(made(path, x=["y" * 9_000_000] * 3), what="texts")
    from mtorl.datasets.importers import parquet_server
    from mtorl.datasets.importers.reading_server import RefusedError

    monkeypatch.setattr(parquet_server, "ROW_GROUP", 1000)
    opened = parquet_server.open_file(str(made(path, 2, x=np.arange(300.0), y=np.zeros(300))))
    opened.reply({"what": "rows", "name": "y", "start": 0, "stop": 3})
    with pytest.raises(RefusedError, match=r"x has \d+ bytes in row group 0; expected at most 1000"):
        opened.reply({"what": "rows", "name": "x", "start": 0, "stop": 3})
    opened.close()
    pq.write_table(pa.Table.from_arrays([pa.array([1])] * 2, names=["x", "x"]), path)
    assert "several of one name" in failing(path)


def test_a_large_row_group_is_read_in_parts(tmp_path: Path) -> None:
    draw = np.random.default_rng(0).normal(size=8_000_000)
    path = made(tmp_path / "a.parquet", x=draw)
    with ParquetReader(path) as file:
        before = _memory(file._process.pid)
        for start in range(0, len(draw), 100_000):
            assert file.read("x", start, start + 100_000)[0] == draw[start]
        assert _memory(file._process.pid) - before < 40e6 < draw.nbytes


def _memory(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_damaged_files(tmp_path: Path) -> None:
    path = made(tmp_path / "a.parquet", x=np.arange(1000))
    content = path.read_bytes()
    for kept in (0, 7, 100, len(content) // 2):
        path.write_bytes(content[:kept])
        assert "cannot be read" in failing(path)
    assert "cannot be read" in failing(tmp_path / "nowhere.parquet")
    with pytest.raises(InputError, match="is a folder"):
        ParquetReader(tmp_path)
