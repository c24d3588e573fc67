"""Parquet files of strangers, read for columns of numbers and texts and nothing else, by a process of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from mtorl import InputError
from mtorl.datasets.importers.reading_process import Reader
from mtorl.schema import Integer, ListOf, MappingOf, Record, Text, check

COLUMNS = Record({"rows": Integer(0, 1 << 40), "columns": MappingOf(Text())})
TEXTS = Record({"texts": ListOf(Text())})


@dataclass(frozen=True)
class Columns:
    """What a file holds.

    Attributes:
        rows: How many there are.
        kinds: Of each column: "numbers", "rows" of numbers, "text", or what else it is, which is not read.
    """

    rows: int
    kinds: Mapping[str, str]


class ParquetReader(Reader):
    """An open Parquet file. Types within types, dictionaries, objects and missing values are refused by name.

    Rows of a column are asked for in their order, from the first one.

    Args:
        path: The file.

    Raises:
        InputError: It cannot be opened, or pyarrow is not installed.
    """

    server = "parquet_server"
    remedy = "Download it again."

    def __init__(self, path: Path) -> None:
        if find_spec("pyarrow") is None:
            raise InputError(f"{path}: Parquet files are read by pyarrow: `pip install 'mtorl[lerobot]'`.")
        super().__init__(path)

    def columns(self) -> Columns:
        """What it holds."""
        found = self.ask("", "columns")
        check(found, COLUMNS, f"{self.path}: what it says of its columns", self.remedy)
        return Columns(found["rows"], found["columns"])

    def texts(self, name: str) -> list[str]:
        """All values of a column of texts.

        Raises:
            InputError: There is no such column, it holds something else, or they are too many.
        """
        found = self.ask(name, "texts")
        check(found, TEXTS, f"{self.path}: {name}", self.remedy)
        return list(found["texts"])
