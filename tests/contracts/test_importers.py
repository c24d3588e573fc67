"""What every importer must do, with the corpora of the fuzzer as its files."""

import importlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from inspect import isabstract
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from families import concrete

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.episode import Episode
from mtorl.datasets.importers import Importer
from mtorl.envs.importing import import_data

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
KINDS = sorted(
    (kind for kind in concrete(Importer) if kind.__module__.startswith("mtorl.") and not isabstract(kind)),
    key=lambda kind: kind.__name__,
)
COUNT = 100
"""Damaged files of each kind."""


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def corpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    found = corpus_module(request.param.__name__.lower()).CORPUS
    assert type(found.importer()) is request.param
    return found


def corpus_module(kind: str) -> Any:
    """The corpus of an importer; skips where an extra that it needs is not installed."""
    name = f"corpus_{kind}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in (None, name):
            raise
        pytest.skip(f"needs {error.name}")


def files(corpus: Any, home: Path) -> Iterator[tuple[Importer, list[str]]]:
    """Right files of each form that the corpus has, and an importer that knows nothing of them."""
    for number, make in enumerate(corpus.right):
        folder = home / f"files-{number}"
        folder.mkdir(parents=True)
        make(folder, np.random.default_rng(number))
        yield corpus.importer(), corpus.words(folder)


def same(one: Episode, other: Episode) -> None:
    assert (one.task, one.goal, one.seed) == (other.task, other.goal, other.seed)
    assert np.float32([one.noise, one.random]).tolist() == np.float32([other.noise, other.random]).tolist()
    for name in ("observations", "actions", "rewards", "success", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)


def test_two_readings_agree_with_the_store_and_what_was_announced(corpus: Any, tmp_path: Path) -> None:
    for number, (importer, words) in enumerate(files(corpus, tmp_path)):
        paths = importer.paths(words)
        contents = importer.contents(paths)
        first, second = list(importer.episodes(paths)), list(corpus.importer().episodes(paths))
        assert contents.episodes in (None, len(first))
        assert {it.task for it in first} <= set(contents.task_names)
        store = import_data(importer, words, tmp_path / f"store-{number}", quiet=True)
        store.verify()
        assert len(first) == len(second) == len(store.index)
        assert store.task_names == tuple(contents.task_names)
        assert store.returns_only == tuple(contents.returns_only)
        assert store.manifest["card"]["origin"]
        for place, (one, other) in enumerate(zip(first, second, strict=True)):
            sizes = one.observations.shape[1], one.actions.shape[1]
            assert sizes == (contents.observation_dim, contents.action_dim)
            same(one, other)
            same(store.episode(place), one.checked(*sizes))


def test_right_files_are_recognised_and_garbage_never_raises(corpus: Any, tmp_path: Path) -> None:
    kind = type(corpus.importer())
    for importer, words in files(corpus, tmp_path):
        assert all(kind.recognises(path) for path in importer.paths(words))
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    for ending in ("", ".hdf5", ".h5", ".npz", ".npy"):
        (tmp_path / f"noise{ending}").write_bytes(np.random.default_rng(0).bytes(100))
        os.mkfifo(tmp_path / f"pipe{ending}")
        (tmp_path / f"folder{ending}").mkdir()
        for name in ("noise", "pipe", "folder", "nowhere", "x" * 5000, "empty/inner", "loop/inner", "nul\0"):
            assert kind.recognises(tmp_path / f"{name}{ending}") in (True, False)


def test_an_import_that_stops_leaves_nothing(corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importer, words = next(files(corpus, tmp_path / "in"))
    out = tmp_path / "out"

    def stopping(self: Importer, paths: list[Path]) -> Iterator[Episode]:
        yield next(whole(self, paths))
        raise KeyboardInterrupt

    whole = type(importer).episodes
    with monkeypatch.context() as patch:
        patch.setattr(type(importer), "episodes", stopping)
        with pytest.raises(KeyboardInterrupt):
            import_data(importer, words, out, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    with pytest.raises(InputError, match=r"no file was given|nowhere"):
        import_data(importer, [str(tmp_path / "nowhere")], out, quiet=True)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_killed_import_is_done_again(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from mtorl.datasets.importers import D4RL
from mtorl.envs.importing import import_data
whole = D4RL.episodes
def dying(self, paths):
    yield next(whole(self, paths))
    os.kill(os.getpid(), signal.SIGKILL)
D4RL.episodes = dying
import_data(D4RL(), [sys.argv[1]], sys.argv[2], quiet=True)
"""
    h5py = pytest.importorskip("h5py")
    path, out = tmp_path / "a.hdf5", tmp_path / "out"
    with h5py.File(path, "w") as file:
        for name, shape in {"observations": (4, 3), "actions": (4, 2), "rewards": (4,), "terminals": (4,)}.items():
            file[name] = np.zeros(shape, np.float32)
    done = subprocess.run([sys.executable, "-c", code, path, out])
    assert done.returncode == -signal.SIGKILL and not out.exists()
    importer = next(kind for kind in KINDS if kind.__name__ == "D4RL")()
    import_data(importer, [path], out, quiet=True).verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdf5", "out"]
    shutil.rmtree(out)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(path.stem.partition("_")[2] for path in BENCHMARKS.glob("corpus_*.py")))
def test_damaged_files_are_right_or_one_clear_error(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    corpus_module(kind)
    command = [sys.executable, BENCHMARKS / "fuzz_importers.py", kind, "--count", str(COUNT), "--forked"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


def test_data_where_their_kind_should_be_named_are_recognised(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.savez(tmp_path / "x.npz", rewards=np.zeros(3))
    assert main(["import", str(tmp_path / "x.npz"), "--out", "y"]) == 2
    assert f"`mtorl import npz {tmp_path / 'x.npz'} --out y`" in capsys.readouterr().err
