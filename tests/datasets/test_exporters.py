"""A data set that goes out and comes in again is the same, bit for bit."""

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import episode

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.card import Card
from mtorl.datasets.exporters import HDF5, Exporter, Minari, Npz
from mtorl.datasets.flat import KEYS, columns_of
from mtorl.datasets.importers import D4RL, Importer
from mtorl.datasets.importers import Minari as MinariImporter
from mtorl.datasets.importers import Npz as NpzImporter
from mtorl.datasets.store import COLUMNS, Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.envs import Recorded
from mtorl.envs.importing import import_data
from mtorl.families import members

HAS_MINARI = importlib.util.find_spec("minari") is not None
KINDS: dict[str, Callable[[Path], tuple[Exporter, Importer]]] = {
    "npz": lambda out: (Npz(str(out)), NpzImporter()),
    "hdf5": lambda out: (HDF5(str(out)), D4RL()),
    "minari": lambda out: (Minari("some/set-v0", str(out)), MinariImporter()),
}


@pytest.fixture(params=[*KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "minari" and not HAS_MINARI:
        pytest.skip("needs minari")
    return request.param


def _own(whole: Episode, observation_dim: int, action_dim: int) -> Episode:
    """With zeros beyond a task's own dimensions."""
    seen, done = whole.observations.copy(), whole.actions.copy()
    seen[:, observation_dim:] = done[:, action_dim:] = 0
    return replace(whole, observations=seen, actions=done)


def _blind(whole: Episode) -> Episode:
    """Without success."""
    return replace(whole, success=np.zeros_like(whole.success))


@pytest.fixture
def odd(tmp_path: Path) -> EpisodeStore:
    """Everything that a store may hold and few do: episodes of tasks in turn, ends without a flag, an empty task."""
    names = ("D4RL/a-b", "..", "ünï", "empty")
    sizes = dict(zip(names, [(3, 2), (2, 2), (3, 1), (1, 1)], strict=True))
    none = np.zeros(6, dtype=bool)
    episodes = [
        episode(names[0], 5, 0),
        episode(names[1], 1, 1),
        replace(episode(names[0], 3, 2), goal=-1, noise=0.1, random=0.3, seed=-7),
        replace(episode(names[2], 6, 3), truncated=none, seed=2**62),
        replace(episode(names[0], 6, 4), terminated=~none, success=none),
        replace(episode(names[1], 6, 4), terminated=np.arange(6) == 2, goal=2**31 - 1),
    ]
    episodes = [_own(it, *sizes[it.task]) for it in episodes]
    episodes = [it if it.task == names[0] else _blind(it) for it in episodes]
    suite = Recorded(names, 3, 2, 9).describe()
    card = Card("made for a test", "CC-BY-4.0", ("a note", "ünï"))
    StoreWriter(
        tmp_path / "odd",
        suite,
        names,
        (3, 2),
        9,
        {"simulator": "1"},
        {"recipe": "test", "split": "heldout"},
        card,
        names[1:],
        [*sizes.values()],
        [{"path": "elsewhere"}],
    ).write(episodes)
    return EpisodeStore(tmp_path / "odd")


def back(kind: str, store: EpisodeStore, folder: Path) -> EpisodeStore:
    """Out and in again."""
    exporter, importer = KINDS[kind](folder / "out")
    return import_data(importer, [exporter.export(store)], folder / "in", quiet=True)


def assert_same(ours: EpisodeStore, theirs: EpisodeStore) -> None:
    for name in COLUMNS:
        assert (ours.path / f"{name}.npy").read_bytes() == (theirs.path / f"{name}.npy").read_bytes(), name
    expected, found = ours.manifest, theirs.manifest
    assert {**found["source"], **expected["source"]} == found["source"], "what imported it is added"
    kept = {name: value for name, value in expected.items() if name != "source"}
    assert {name: found[name] for name in kept} == kept
    theirs.verify()


def test_every_exporter_is_under_these_tests() -> None:
    assert {*KINDS} == {kind.name.lower() for kind in members("exporters")}


def test_round_trips_are_exact(kind: str, store: EpisodeStore, odd: EpisodeStore, tmp_path: Path) -> None:
    assert_same(store, back(kind, store, tmp_path / "points"))
    assert_same(odd, back(kind, odd, tmp_path / "strange"))


def test_long_columns_are_read_in_blocks(
    kind: str, store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that end within episodes, and episodes of several blocks."""
    monkeypatch.setattr("mtorl.datasets.importers.flat.BLOCK", 7)
    assert_same(store, back(kind, store, tmp_path))


@pytest.mark.parametrize("kind", ["npz", "hdf5"])
def test_some_of_the_files_are_a_data_set_of_those_tasks(kind: str, odd: EpisodeStore, tmp_path: Path) -> None:
    exporter, importer = KINDS[kind](tmp_path / "out")
    made = exporter.export(odd)
    chosen = [path for path in sorted(made.iterdir(), reverse=True) if "a-b" in path.name or "n" in path.stem]
    part = import_data(importer, chosen, tmp_path / "in", quiet=True)
    assert part.task_names == ("D4RL/a-b", "ünï") and part.own_dimensions == [[3, 2], [3, 1]]
    assert part.returns_only == ("ünï",)
    expected = [it for it in odd if it.task != ".."]
    for ours, theirs in zip(expected, part, strict=True):
        assert ours.task == theirs.task and ours.seed == theirs.seed
        np.testing.assert_array_equal(ours.observations, theirs.observations)


def test_numpy_alone_reads_npz(store: EpisodeStore, tmp_path: Path) -> None:
    folder = Npz(str(tmp_path / "out")).export(store)
    assert sorted(path.stem for path in folder.iterdir()) == sorted(store.task_names)
    arrays = np.load(folder / "away-0.npz", allow_pickle=False)
    assert {*arrays.files} == {*KEYS, "mtorl/manifest"}
    ours = [it for it in store if it.task == "away-0"]
    np.testing.assert_array_equal(arrays["actions"], np.concatenate([it.actions for it in ours]))
    np.testing.assert_array_equal(arrays["next_observations"][-1], ours[-1].observations[-1])
    ends = np.flatnonzero(arrays["terminals"] | arrays["timeouts"]) + 1
    assert np.diff([0, *ends]).tolist() == [len(it) for it in ours]
    assert json.loads(bytes(arrays["mtorl/manifest"]))["part"]["task"] == "away-0"


def test_exports_are_the_same_bytes_every_time(store: EpisodeStore, tmp_path: Path) -> None:
    """Also those that were made at different seconds."""
    kinds: list[tuple[Any, str]] = [(Npz, "npz"), (HDF5, "hdf5")]
    first = {suffix: kind(str(tmp_path / f"{suffix}0")).export(store) for kind, suffix in kinds}
    made = int(time.time())
    while int(time.time()) == made:
        time.sleep(0.05)
    for kind, suffix in kinds:
        second = kind(str(tmp_path / f"{suffix}1")).export(store)
        for path in first[suffix].iterdir():
            assert path.read_bytes() == (second / path.name).read_bytes()


def test_hdf5_is_laid_out_as_d4rl_does(store: EpisodeStore, tmp_path: Path) -> None:
    folder = HDF5(str(tmp_path / "out")).export(store)
    with h5py.File(folder / "towards-2.hdf5") as file:
        found: dict[str, Any] = {}
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    ours = [it for it in store if it.task == "towards-2"]
    steps = sum(len(it) for it in ours)
    assert {len(values) for values in found.values()} == {steps}, "d4rl cuts every array of a file into episodes"
    ends = np.flatnonzero(found["terminals"] | found["timeouts"]) + 1
    parts = np.split(found["observations"], ends[:-1])
    for part, it in zip(parts, ours, strict=True):
        np.testing.assert_array_equal(part, it.observations[:-1])


def test_names_of_tasks_that_are_no_names_of_files(tmp_path: Path) -> None:
    names = ("a/b", "a_b", "A:b", "1-a_b", "...", "x" * 300)
    StoreWriter(tmp_path / "store", Recorded(names, 3, 2, 9).describe(), names, (3, 2), 9, {}, {}).write(
        episode(name, 2, seed) for seed, name in enumerate(names)
    )
    store = EpisodeStore(tmp_path / "store")
    assert_same(store, back("npz", store, tmp_path))
    assert len([*(tmp_path / "out").iterdir()]) == len(names)


def test_a_single_task_may_be_a_file(odd: EpisodeStore, small: EpisodeStore, tmp_path: Path) -> None:
    one = next(it for it in odd if it.task == "..")
    StoreWriter(tmp_path / "one", odd.suite, ["..", "empty"], (3, 2), 9, {}, {}).write([one, one])
    store = EpisodeStore(tmp_path / "one")
    for kind, suffix in ((Npz, ".npz"), (HDF5, ".hdf5"), (HDF5, ".h5")):
        out = tmp_path / f"task{suffix}"
        assert kind(str(out)).export(store) == out and out.is_file()
        with pytest.raises(InputError, match=r"exists; expected a new file"):
            kind(str(out)).export(store)
        with pytest.raises(InputError, match=r"is to hold one task; .* has 2\. Give a folder"):
            kind(str(tmp_path / f"tasks{suffix}")).export(small)
    assert_same(store, import_data(NpzImporter(), [tmp_path / "task.npz"], tmp_path / "in", quiet=True))


def test_what_is_there_is_not_touched(kind: str, store: EpisodeStore, tmp_path: Path) -> None:
    exporter, _ = KINDS[kind](tmp_path / "out")
    made = exporter.export(store)
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="exists and is not empty"):
        exporter.export(store)
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == before


def test_an_export_that_fails_leaves_nothing(
    kind: str, store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next one works."""
    exporter, _ = KINDS[kind](tmp_path / "out")
    real, calls = EpisodeStore.episode, []

    def failing(self: EpisodeStore, number: int) -> Any:
        calls.append(number)
        if len(calls) > 30:
            raise KeyboardInterrupt
        return real(self, number)

    monkeypatch.setattr(EpisodeStore, "episode", failing)
    with pytest.raises(KeyboardInterrupt):
        exporter.export(store)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    monkeypatch.undo()
    assert exporter.export(store).exists()


def test_a_full_disk_is_one_error(store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Iterator[Any]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mtorl.datasets.exporters.flat_files.FlatTask.blocks", full)
    for kind in (Npz, HDF5):
        with pytest.raises(InputError, match=r"could not write .*No space left"):
            kind(str(tmp_path / "out")).export(store)
        assert not (tmp_path / "out").exists()


def test_columns_are_as_long_as_their_episode(odd: EpisodeStore) -> None:
    for number, it in enumerate(odd):
        columns = columns_of(odd, number)
        assert tuple(columns) == KEYS
        assert {len(values) for values in columns.values()} == {len(it)}
        ends = columns["terminals"] | columns["timeouts"]
        assert ends[-1], "whoever cuts at these flags finds the end"


@pytest.mark.skipif(not HAS_MINARI, reason="needs minari")
def test_minari_opens_what_was_exported(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    assert main(["export", "minari", str(store.path), "--id", "my/deep/points-v3"]) == 0
    assert "36 episodes of 3 tasks are in" in capsys.readouterr().out
    assert list(minari.list_local_datasets()) == ["my/deep/points-v3"]
    assert minari.namespace.list_local_namespaces() == ["my", "my/deep"]
    dataset = minari.load_dataset("my/deep/points-v3")
    assert dataset.total_steps == store.manifest["steps"]
    metadata = list(dataset.storage.get_episode_metadata(range(len(store))))
    for ours, theirs, said in zip(store, dataset.iterate_episodes(range(len(store))), metadata, strict=True):
        for left, right in (
            (ours.observations, theirs.observations),
            (ours.actions, theirs.actions),
            (ours.rewards, theirs.rewards),
            (ours.terminated, theirs.terminations),
            (ours.truncated, theirs.truncations),
            (ours.success, theirs.infos["success"][1:]),
        ):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
        assert (said["task"], said["goal"], said["seed"], said["noise"]) == (
            ours.task,
            ours.goal,
            ours.seed,
            ours.noise,
        )


@pytest.mark.skipif(not HAS_MINARI, reason="needs minari")
def test_what_minari_gives_back_is_compared(
    store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minari.dataset.minari_dataset import MinariDataset

    real = MinariDataset.iterate_episodes

    def other(self: MinariDataset, *arguments: Any) -> Iterator[Any]:
        return (replace(it, rewards=it.rewards + (it.id == 4)) for it in real(self, *arguments))

    monkeypatch.setattr(MinariDataset, "iterate_episodes", other)
    with pytest.raises(InputError, match="gives other rewards for episode 4 than were written"):
        Minari("a-v0", str(tmp_path)).export(store)
    assert not (tmp_path / "a-v0").exists()


def test_without_minari_its_name_is_said(store: EpisodeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(InputError, match=r"pip install 'mtorl\[minari\]'"):
        Minari("a-v0", str(tmp_path)).export(store)
    for name in ("a", "../a-v0", "a/-v0/", "a b-v0", "/tmp/a-v0"):
        with pytest.raises(InputError, match="is no name of a Minari data set"):
            Minari(name)


def test_the_command_says_what_can_be_written(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["export", "--help"]) == 0
    assert "hdf5, minari, npz" in capsys.readouterr().out
    assert main(["export", "pickle"]) == 2
    assert "unknown kind of data 'pickle'; expected one of hdf5, minari, npz" in capsys.readouterr().err
    assert main(["export", "npz", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "no data set in" in capsys.readouterr().err
