import os
import pickle
from pathlib import Path

import pytest
import torch

from mtorl import InputError
from mtorl.trainers import checkpoint
from mtorl.trainers.checkpoint import BEST, CheckpointFolder, fitting, restore

STATE = {
    **{
        key: {}
        for key in ("config", "agent", "balancers", "sharing", "optimizers", "sampler", "probe", "sums", "counts")
    },
    "evaluated": 0,
    "best": -1.0,
    "log_bytes": 0,
}
"""What a checkpoint must hold besides its step."""


def test_the_last_few_and_the_best_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (5, 10, 15, 20):
        folder.save(step, STATE | {"x": torch.tensor(step)}, best=step == 10)
    assert folder.steps() == [15, 20]
    assert [int(folder.load(which)["x"]) for which in ("last", "best", "15")] == [20, 10, 15]
    assert sorted(path.name for path in tmp_path.iterdir()) == [BEST, "step_000000015.pt", "step_000000020.pt"]


def test_weights_of_another_agent_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"do not fit Linear: .*Missing key\(s\) in state_dict: \"bias\".*Use that version"
    ):
        restore(torch.nn.Linear(2, 1), {"weight": torch.zeros(1, 2)})


def test_the_best_is_written_before_the_checkpoint_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    real = checkpoint.write_atomically
    monkeypatch.setattr(
        checkpoint, "write_atomically", lambda path, write: (written.append(path.name), real(path, write))
    )
    CheckpointFolder(tmp_path).save(5, {}, best=True)
    assert written == [BEST, "step_000000005.pt"]


def test_foreign_files_are_not_taken_for_checkpoints(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(5, {})
    (tmp_path / "step_old.pt").touch()
    assert folder.steps() == [5]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    with pytest.raises(InputError, match="nothing was saved yet"):
        folder.load()
    folder.save(5, {})
    with pytest.raises(InputError, match=r"no checkpoint 7 .*the steps there are \[5\]"):
        folder.load("7")
    with pytest.raises(InputError, match="unknown checkpoint 'newest'; expected last, best or a step"):
        folder.load("newest")
    with pytest.raises(InputError, match="keep is 0"):
        CheckpointFolder(tmp_path, keep=0)


class Evil:
    """Would run a command when unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("pwned"),))


def test_hostile_damaged_and_newer_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = CheckpointFolder(tmp_path)
    torch.save({"schema": 1, "agent": Evil()}, folder.file(1))
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        folder.load("1")
    folder.file(2).write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        folder.load("2")
    assert not Path("pwned").exists()
    folder.save(3, {"x": torch.ones(1000)})
    content = folder.file(3).read_bytes()
    folder.file(3).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        folder.load("3")
    torch.save({"schema": 99}, folder.file(4))
    with pytest.raises(InputError, match="schema 99; this version of mtorl reads up to 1"):
        folder.load("4")


@pytest.mark.parametrize("key", ["step", *STATE])
def test_a_checkpoint_that_lacks_something_is_refused_by_its_name(tmp_path: Path, key: str) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(3, STATE)
    whole = {"schema": 1, "step": 5, **STATE}
    torch.save({name: value for name, value in whole.items() if name != key}, folder.file(5))
    with pytest.raises(InputError, match=rf"damaged or is no checkpoint.* lacks \['{key}'\]\. Delete it .* step 3"):
        folder.load()
    low = -1e39 if key == "best" else -3  # the best return so far may be any number of single precision
    for value in ("word", low if isinstance(whole[key], int | float) else {1: 2}, float("nan"), [], None):
        torch.save({**whole, key: value}, folder.file(5))
        with pytest.raises(InputError, match=rf"no checkpoint of mtorl, is malformed: {key} "):
            folder.load()


def test_why_a_checkpoint_cannot_be_read_is_said_in_our_own_words(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(1, STATE)
    whole = folder.file(1).read_bytes()
    torch.save({"schema": 1, "step": 2, **STATE, "agent": Evil()}, folder.file(2))
    for content, reason in (
        (b"", "it is empty"),
        (whole[:-100], "it was cut off, or is another kind of file"),
        (b"hello", "it was cut off, or is another kind of file"),
        (folder.file(2).read_bytes(), "it holds more than tensors and plain values"),
    ):
        folder.file(2).write_bytes(content)
        with pytest.raises(
            InputError, match=rf"damaged, or is no checkpoint of mtorl \({reason}.* go on from step 1"
        ) as it:
            folder.load("2")
        assert not any(word in str(it.value).lower() for word in ("weights_only", "trust", "pytorch", "pickle"))


def test_a_pipe_is_no_checkpoint(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    os.mkfifo(folder.file(1))
    with pytest.raises(InputError, match="is a pipe or device; expected a regular file"):
        folder.load()


def test_a_part_that_does_not_fit_is_named() -> None:
    for error, reason in ((KeyError("actor"), "it lacks 'actor'"), (RuntimeError("sizes differ."), "sizes differ")):
        with (
            pytest.raises(InputError, match=f"balancers do not fit Equal: {reason}. It was written"),
            fitting("balancers", "Equal"),
        ):
            raise error
