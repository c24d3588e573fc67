from pathlib import Path

import pytest

from mtorl import InputError
from mtorl.datasets.files import read_json, write_atomically, write_json


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, [1])

    def fail(file) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"x.json.*No space left.*same command"):
        write_atomically(path, fail)
    assert read_json(path, "list") == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]


def test_an_interrupted_write_leaves_no_rest(tmp_path: Path) -> None:
    def interrupt(file) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "x", interrupt)
    assert not list(tmp_path.iterdir())


def test_unreadable_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(InputError, match=r"thing .*x\.json cannot be read"):
        read_json(tmp_path / "x.json", "thing")
    with pytest.raises(InputError, match="thing not found"):
        read_json(tmp_path / "y.json", "thing")
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "z.json", float("nan"))
