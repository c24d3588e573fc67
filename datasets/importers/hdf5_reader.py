"""HDF5 files of strangers, read for plain arrays of numbers and nothing else, by a process of their own."""

from dataclasses import dataclass
from typing import Any

from mtorl.datasets.importers.reading_process import Reader
from mtorl.schema import ListOf, MappingOf, Plain, Record, check

GROUP = Record({"shapes": MappingOf(ListOf(Plain(), 2)), "attributes": MappingOf(Plain())})


@dataclass(frozen=True)
class Group:
    """What a group of a file holds.

    Attributes:
        shapes: Of all arrays in it and in its groups, by their names from there.
        dtypes: The same, numpy's words for them.
        attributes: Those that are a number or a text.
    """

    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    attributes: dict[str, Any]


class Hdf5Reader(Reader):
    """An open HDF5 file. Links, virtual data sets, values in other files, and whatever is no number are refused."""

    server = "hdf5_server"
    remedy = "Download it again, or write it again with h5py."

    def group(self, name: str) -> Group:
        """What a group holds.

        Args:
            name: From the root of the file; "" is the root.

        Raises:
            InputError: It is not there, or cannot be read.
        """
        found = self.ask(name, "group")
        check(found, GROUP, f"{self.path}: {name}", self.remedy)
        entries = {key: (tuple(shape), dtype) for key, (shape, dtype) in found["shapes"].items()}
        return Group(
            {key: shape for key, (shape, _) in entries.items()},
            {key: dtype for key, (_, dtype) in entries.items()},
            found["attributes"],
        )
