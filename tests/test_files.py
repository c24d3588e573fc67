import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtorl import InputError
from mtorl.files import locked, read_json, sha256, write_atomically, write_json


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


def test_a_folder_is_locked_against_other_processes_and_freed_at_the_end(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from mtorl.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1]), 'episodes'): print('mine')"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with locked(tmp_path, "episodes"):
        refused = subprocess.run(command, capture_output=True, text=True)
    assert "another process is at work in" in refused.stderr and refused.returncode == 1
    allowed = subprocess.run(command, capture_output=True, text=True)
    assert allowed.stdout == "mine\n" and not list(tmp_path.iterdir()), "the lock leaves nothing behind"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for name, kind in (("pipe", "a pipe or device"), ("link", "a pipe or device"), ("folder", "a folder")):
        for read in (lambda path: read_json(path, "list"), sha256):
            with pytest.raises(InputError, match=f"{name} is {kind}; expected a regular file"):
                read(tmp_path / name)
    with pytest.raises(InputError, match="list /dev/zero is a pipe or device"):
        read_json(Path("/dev/zero"), "list")
    write_json(tmp_path / "x.json", [1])
    (tmp_path / "good").symlink_to(tmp_path / "x.json")
    assert read_json(tmp_path / "good", "list") == [1]


def test_json_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 1_000_000)
    with pytest.raises(InputError, match=r"list .*x\.json cannot be read"):
        read_json(tmp_path / "x.json", "list")
