"""HDF5 files of strangers."""

import os
import signal
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mtorl import InputError
from mtorl.datasets.importers import reading_process
from mtorl.datasets.importers.hdf5_reader import Hdf5Reader


def made(path: Path, **arrays: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def failing(path: Path, name: str = "x") -> str:
    with pytest.raises(InputError) as error, Hdf5Reader(path) as file:
        file.read(name)
    assert str(path) in str(error.value)
    return str(error.value)


def test_values_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    values = [
        np.array(3.5),
        np.zeros((0, 4), np.float32),
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.array([True, False]),
    ]
    with h5py.File(path, "w") as file:
        for number, array in enumerate(values):
            file[f"deep/er/{number}"] = array
        file.create_dataset("packed", data=np.arange(1000.0), compression="gzip", chunks=(7,))
        file.attrs.update({"text": "ü", "bytes": np.bytes_(b"y"), "number": 3, "real": 0.1, "list": [1, 2]})
    with Hdf5Reader(path) as file:
        group = file.group("deep")
        assert group.shapes == {f"er/{number}": array.shape for number, array in enumerate(values)}
        assert file.group("").attributes == {"text": "ü", "bytes": "y", "number": 3, "real": 0.1}
        for number, array in enumerate(values):
            found = file.read(f"deep/er/{number}")
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array)
        np.testing.assert_array_equal(file.read("packed", 3, 20), np.arange(3.0, 20))
        with pytest.raises(InputError, match="there is no /nowhere"):
            file.read("nowhere")
        assert file.read("packed", 999).tolist() == [999], "an error is not the end"


def test_nothing_but_arrays_in_the_file_itself(tmp_path: Path) -> None:
    other = made(tmp_path / "other.h5", x=np.arange(3))
    path = tmp_path / "a.h5"
    layout = h5py.VirtualLayout((3,), "i8")
    layout[:] = h5py.VirtualSource(other, "x", (3,))
    (tmp_path / "raw").write_bytes(bytes(24))
    with h5py.File(path, "w") as file:
        file["external"] = h5py.ExternalLink(str(other), "x")
        file["soft"] = h5py.SoftLink("/numbers")
        file["numbers"] = np.arange(3)
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("elsewhere", (3,), "i8", external=[(str(tmp_path / "raw"), 0, 24)])
        file.create_dataset("texts", data=["a", "b"])
        file.create_dataset("pairs", data=np.zeros(2, [("a", "i4"), ("b", "f4")]))
        file.create_dataset("ragged", (2,), h5py.vlen_dtype(np.int32))
        file.create_group("group")
    for name, message in {
        "external": "/external is a ExternalLink",
        "soft": "/soft is a SoftLink",
        "virtual": "is a virtual data set",
        "elsewhere": "lies in another file",
        "texts": "no plain numbers",
        "pairs": "no plain numbers",
        "ragged": "no plain numbers",
        "group": "is no array",
    }.items():
        assert message in failing(path, name)
    with pytest.raises(InputError, match="Link to something else"), Hdf5Reader(path) as file:
        file.group("")


def test_sizes_have_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10**12,), "f8")  # nothing is written
        file.create_dataset("zeros", (2**22,), "f8", compression="gzip", chunks=(2**20,), fillvalue=1)
    assert "cannot be read" in failing(path) or "at most" in failing(path)
    with Hdf5Reader(path) as file:
        file.read("zeros", 0, 2**21)
        with pytest.raises(InputError, match="unpacks to more than 64 times its size"):
            file.read("zeros", 2**20)
    with h5py.File(path, "w") as file:
        for number in range(6):
            file.require_group("/".join("abcdef"[: number + 1]))
        file["a/loop"] = file["a"]
    with pytest.raises(InputError, match="at depth 5"), Hdf5Reader(path) as file:
        file.group("")


def test_damaged_files(tmp_path: Path) -> None:
    path = made(tmp_path / "a.h5", x=np.arange(1000))
    content = path.read_bytes()
    for kept in (0, 7, 100, len(content) // 2):
        path.write_bytes(content[:kept])
        assert "cannot be read" in failing(path)
    assert "cannot be read" in failing(tmp_path / "nowhere.h5")
    with pytest.raises(InputError, match="is a folder"):
        Hdf5Reader(tmp_path)


def test_one_process_reads_many_files_until_something_is_wrong(tmp_path: Path) -> None:
    paths = [made(tmp_path / f"{number}.h5", x=np.arange(number + 1)) for number in range(3)]
    used = []
    for path in paths:
        with Hdf5Reader(path) as file:
            assert len(file.read("x")) == int(path.stem) + 1
            used.append(file._process)
    assert used[0] is used[1] is used[2]
    with Hdf5Reader(paths[0]) as file, Hdf5Reader(paths[1]) as other:
        assert file._process is used[0] and other._process is not used[0]
        assert len(file.read("x")) == 1 and len(other.read("x")) == 2
    with pytest.raises(InputError), Hdf5Reader(paths[2]) as file:
        spoilt = file._process
        file.read("y")
    with pytest.raises(KeyboardInterrupt), Hdf5Reader(paths[2]) as file:
        interrupted = file._process
        assert interrupted is not spoilt
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(file, "_more", lambda until: (_ for _ in ()).throw(KeyboardInterrupt))
            file.read("x")
    assert spoilt.poll() is not None and interrupted.poll() is not None
    with Hdf5Reader(paths[2]) as file:
        assert file.read("x").tolist() == [0, 1, 2]


def test_a_process_that_dies_or_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "a.h5", x=np.arange(3))
    with pytest.raises(InputError, match="the process that reads it died"), Hdf5Reader(path) as file:
        os.kill(file._process.pid, signal.SIGKILL)
        file._process.wait()
        file.read("x")
    monkeypatch.setattr(reading_process, "SECONDS", 0.2)
    with pytest.raises(InputError, match="took more than 0 s"), Hdf5Reader(path) as file:
        os.kill(file._process.pid, signal.SIGSTOP)
        file.read("x")
    assert file._process.poll() is not None, "nothing is left behind"
