"""Parquet files, for `reading_server`: columns of numbers, of rows of numbers, and of texts, and nothing else.

A column is read in its order, a few rows at a time: neither the file nor a row group of it is held in memory.
"""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mtorl.datasets.importers.reading_server import RefusedError, Reply, Request, values_reply

COLUMNS = 10_000
"""Most columns of a file."""
ROW_GROUP = 1 << 30
"""Bytes of a column in one row group, at most, as the file says."""
TEXTS = 1 << 24
"""Characters of a column of texts, at most."""
BUFFER = 1 << 20
PICKLED = b"arrow.py_extension_type"
"""Types that earlier versions of pyarrow unpickled, which ran code of the file."""
NUMBERS, ROWS, TEXT = "numbers", "rows", "text"
"""What a column may hold."""


class Stream:
    """The rows of a column, one after the other.

    Args:
        batches: Their parts, in their order.
        name: Of the column.
    """

    def __init__(self, batches: Iterator[Any], name: str) -> None:
        self._batches, self._name = batches, name
        self._rest = np.zeros((0,), dtype=np.float32)
        self.row = 0

    def rows(self, count: int) -> Any:
        """The next rows; fewer at the end."""
        parts = []
        while count:
            if not len(self._rest):
                batch = next(self._batches, None)
                if batch is None:
                    break
                self._rest = numbers(single(batch, self._name), self._name)
            part, self._rest = self._rest[:count], self._rest[count:]
            parts.append(part)
            count -= len(part)
            self.row += len(part)
        if len({part.shape[1:] for part in parts}) > 1:
            raise RefusedError(f"{self._name} has rows of different lengths")
        return np.concatenate(parts) if parts else self._rest


class ParquetFile:
    """An open file.

    Args:
        path: Its path.

    Raises:
        RefusedError: It names types of Python's own, or has too many columns, or several of one name.
    """

    def __init__(self, path: str) -> None:
        metadata = pq.read_metadata(path)
        if is_pickled(metadata.metadata or {}):
            raise RefusedError("it holds a type that is pickled, which could run code")
        self._file = pq.ParquetFile(path, metadata=metadata, pre_buffer=False, buffer_size=BUFFER)
        schema = self._file.schema_arrow
        if len(schema.names) > COLUMNS or len({*schema.names}) < len(schema.names):
            raise RefusedError(f"it has {len(schema.names)} columns, or several of one name")
        self._kinds = {field.name: kind_of(field.type) for field in schema}
        self._streams: dict[str, Stream] = {}

    def reply(self, request: Request) -> Reply:
        """What columns there are, or rows or texts of one of them."""
        if request["what"] == "columns":
            return {"rows": self._file.metadata.num_rows, "columns": self._kinds}, b""
        name = request["name"]
        self._check(name, (TEXT,) if request["what"] == "texts" else (NUMBERS, ROWS))
        if request["what"] == "texts":
            return {"texts": self._texts(name)}, b""
        start, stop = request["start"], request["stop"]
        if not start:
            self._streams[name] = Stream(self._batches(name, stop), name)
        stream = self._streams.get(name)
        if stream is None or stream.row != start:
            raise RefusedError(f"rows of {name} are asked for out of order")
        return values_reply(stream.rows(stop - start))

    def close(self) -> None:
        """Closes it."""
        self._file.close()

    def _check(self, name: str, expected: tuple[str, ...]) -> None:
        """Raises RefusedError for a column that is not there, of another kind, or in too large parts."""
        if name not in self._kinds:
            raise RefusedError(f"there is no column {name}")
        if self._kinds[name] not in expected:
            raise RefusedError(f"{name} holds {self._kinds[name]}, no plain {' or '.join(expected)}")
        metadata = self._file.metadata
        for group in range(metadata.num_row_groups):
            held = metadata.row_group(group)
            parts = (held.column(number) for number in range(held.num_columns))
            size = sum(it.total_uncompressed_size for it in parts if f"{it.path_in_schema}.".startswith(f"{name}."))
            if size > ROW_GROUP:
                raise RefusedError(f"{name} has {size} bytes in row group {group}; expected at most {ROW_GROUP}")

    def _batches(self, name: str, size: int) -> Iterator[Any]:
        yield from self._file.iter_batches(batch_size=max(size, 1), columns=[name], use_threads=False)

    def _texts(self, name: str) -> list[str]:
        found: list[str] = []
        size = 0
        for batch in self._batches(name, 1024):
            column = single(batch, name)
            size += pc.sum(pc.utf8_length(column)).as_py() or 0
            if column.null_count or size > TEXTS:
                raise RefusedError(f"{name} has missing values, or more than {TEXTS} characters")
            found += column.to_pylist()
        return found


open_file = ParquetFile


def is_pickled(said: dict[bytes, bytes]) -> bool:
    """Whether what a file says of its own types names one that is pickled."""
    schema = said.get(b"ARROW:schema", b"")
    return PICKLED in schema or PICKLED in base64.b64decode(schema)


def kind_of(kind: pa.DataType) -> str:
    """`NUMBERS`, `ROWS` or `TEXT`; of a type that is not read, its name."""
    if _is_number(kind):
        return NUMBERS
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if lists and _is_number(kind.value_type):
        return ROWS
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return TEXT
    return str(kind)[:60]


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def single(batch: Any, name: str) -> Any:
    """A column of a batch, which may hold others whose names begin alike."""
    return batch.column(batch.schema.get_field_index(name))


def numbers(column: Any, name: str) -> Any:
    """A column as an array `[N]`, or `[N, n]` of rows of numbers; raises RefusedError where one is missing."""
    values, shape = column, [len(column)]
    if not _is_number(column.type):
        values = column.flatten()
        if column.null_count == 0 and not pa.types.is_fixed_size_list(column.type):
            lengths = np.diff(column.offsets.to_numpy())
            if (lengths != lengths[:1]).any():
                raise RefusedError(f"{name} has rows of different lengths")
        shape.append(len(values) // max(len(column), 1))
    if column.null_count or values.null_count:
        raise RefusedError(f"{name} has missing values")
    return values.to_numpy(zero_copy_only=False).reshape(shape)
