"""HDF5 files in D4RL's layout, with all that is odd about them."""

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.exporters import HDF5
from mtorl.datasets.importers import D4RL
from mtorl.datasets.importers.d4rl_file import _cut
from mtorl.datasets.importers.d4rl_names import environment_of, files_of, task_of, urls
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.importing import import_data


def arrays(lengths: tuple[int, ...], observation_dim: int = 3, action_dim: int = 2) -> dict[str, Any]:
    """Episodes of these lengths, one after the other; every second one is terminated."""
    steps, draw = sum(lengths), np.random.default_rng(0)
    ends = np.cumsum(lengths) - 1
    terminals, timeouts = np.zeros(steps, bool), np.zeros(steps, bool)
    terminals[ends[1::2]] = timeouts[ends[::2]] = True
    return {
        "observations": draw.normal(size=(steps, observation_dim)).astype(np.float32),
        "actions": draw.uniform(-1, 1, (steps, action_dim)).astype(np.float32),
        "rewards": draw.normal(size=steps).astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
    }


def write(path: Path, content: dict[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            if values is not None:
                file.create_dataset(name, data=values, **(options if np.ndim(values) else {}))
    return path


def read(path: Path, **options: Any) -> EpisodeStore:
    store = import_data(D4RL(**options), [path], path.with_suffix(".store"), quiet=True)
    store.verify()
    return store


def refused(path: Path, *more: Path, **options: Any) -> str:
    out = path.parent / "refused"
    with pytest.raises(InputError) as error:
        import_data(D4RL(**options), [path, *more], out, quiet=True)
    assert not out.exists()
    return str(error.value)


def test_every_oddity_of_the_format_at_once(tmp_path: Path) -> None:
    content = arrays((4, 1, 6, 3))
    content["timeouts"][-1] = content["terminals"][-1] = False
    content["rewards"] = content["rewards"][:, None]
    content["terminals"] = content["terminals"].astype(np.float64)[:, None]
    content |= {"metadata/algorithm": "SAC", "metadata/iteration": 3, "metadata/policy/fc0/weight": np.zeros((5, 2))}
    content |= {"infos/qpos": np.zeros((14, 2)), "infos/action_log_probs": np.zeros(14)}
    store = read(write(tmp_path / "odd-v2.hdf5", content, compression="gzip", chunks=True))
    assert store.task_names == store.returns_only == ("odd",)
    assert store.index["length"].tolist() == [4, 1, 6, 3]
    np.testing.assert_array_equal(store.rewards, content["rewards"][:, 0])
    np.testing.assert_array_equal(store.actions, content["actions"])
    assert np.flatnonzero(store.terminated).tolist() == [4]
    assert np.flatnonzero(store.truncated).tolist() == [3, 10, 13], "the unfinished episode is flagged"
    start = 0
    for number in range(4):
        episode = store.episode(number)
        rows = content["observations"][start : start + len(episode)]
        np.testing.assert_array_equal(episode.observations, [*rows, rows[-1]])
        start += len(episode)
    notes = " ".join(store.manifest["card"]["notes"])
    for said in (
        "The last 3 steps of odd-v2.hdf5 have no end",
        "no next observations",
        "infos/action_log_probs, infos/qpos, metadata/algorithm, metadata/iteration, metadata/policy/fc0/weight",
    ):
        assert said in notes


def test_next_observations_follow_the_last_step(tmp_path: Path) -> None:
    content = arrays((4, 1, 6))
    content["next_observations"] = content["observations"] + 1
    store = read(write(tmp_path / "a.hdf5", content))
    for number, last in enumerate((3, 4, 10)):
        np.testing.assert_array_equal(store.episode(number).observations[-1], content["next_observations"][last])
    assert "no next observations" not in str(store.manifest["card"])


def test_without_timeouts_episodes_are_cut_after_what_is_known(tmp_path: Path) -> None:
    content = arrays((5, 3, 9)) | {"timeouts": None}
    content["terminals"][[4, 7]] = True, False
    path = write(tmp_path / "a.hdf5", content)
    store = read(path, horizon=5)
    assert store.index["length"].tolist() == [5, 5, 5, 2] and store.manifest["horizon"] == 5
    assert np.flatnonzero(store.terminated).tolist() == [4]
    assert np.flatnonzero(store.truncated).tolist() == [9, 14, 16]
    notes = str(store.manifest["card"]["notes"])
    assert "cut after 5 steps" in notes and "last 2 steps" in notes
    other = read(write(tmp_path / "b.hdf5", content))
    assert other.index["length"].tolist() == [5, 12]
    assert "no timeouts: its episodes end where" in str(other.manifest["card"])
    neither = write(tmp_path / "c.hdf5", content | {"terminals": None})
    assert "neither terminals nor timeouts" in refused(neither) and "--horizon" in refused(neither)
    assert read(neither, horizon=9).index["length"].tolist() == [9, 8]


def test_cuts() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        stops, most = np.cumsum(draw.integers(1, 20, draw.integers(1, 8))), int(draw.integers(1, 12))
        expected, start = [], 0
        for stop in stops:
            expected += [*range(start + most, stop, most), stop]
            start = stop
        assert _cut(stops, most).tolist() == expected
    assert _cut(stops, None) is stops


def test_lengths(tmp_path: Path) -> None:
    for lengths in ((1,), (10_000,), (1,) * 300, (9_999, 1, 10_000)):
        store = read(write(tmp_path / f"{len(lengths)}-{lengths[0]}.hdf5", arrays(lengths)))
        assert store.index["length"].tolist() == list(lengths)


def test_reading_in_blocks_is_reading_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = arrays((7, 30, 1, 1, 5, 12, 40, 2))
    path = write(tmp_path / "a.hdf5", content)
    whole = list(D4RL().episodes([path]))
    for size in (1, 200, 700):
        monkeypatch.setattr("mtorl.datasets.importers.d4rl_file.BLOCK", size)
        for one, other in zip(whole, D4RL().episodes([path]), strict=True):
            for name in ("observations", "actions", "rewards", "terminated", "truncated"):
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_arrays_of_other_numbers(tmp_path: Path) -> None:
    content = arrays((4, 3))
    integers = {"observations": (content["observations"] * 100).astype(np.int64), "terminals": content["terminals"] * 1}
    doubles = {name: content[name].astype(">f8") for name in ("actions", "rewards")}
    store = read(write(tmp_path / "a.hdf5", content | integers | doubles))
    np.testing.assert_array_equal(store.observations[:4], integers["observations"][:4])
    np.testing.assert_array_equal(store.actions, content["actions"])
    assert store.rewards.dtype == np.float32


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    content = arrays((4, 3, 6))
    steps, nan = 13, content["rewards"].copy()
    nan[9] = np.nan
    beyond = content["actions"].copy()
    beyond[5, 1] = 1.001
    for change, message in (
        ({"rewards": nan}, "a.hdf5, episode 2: rewards hold NaN or infinity at step 2"),
        ({"actions": beyond}, "a.hdf5, episode 1: its action at step 1 reaches 1.001"),
        ({"observations": np.zeros((steps, 8, 8, 3), np.uint8)}, "Images and the like are not read"),
        ({"actions": np.zeros(steps, np.int64)}, "Actions that are chosen from a list"),
        ({"observations": None}, "no arrays ['observations']; it has ['actions', "),
        ({"rewards": np.zeros((steps, 2))}, "rewards have the shape (13, 2); expected (13,)"),
        ({"actions": content["actions"][:-1]}, "actions have the shape (12, 2); expected (13,"),
        ({"next_observations": np.zeros((steps, 4))}, "next_observations have the shape (13, 4)"),
        ({"observations": [["a", "b"]] * steps}, "are of the type |O; expected plain real numbers"),
        ({"observations": np.zeros((steps, 3), np.complex64)}, "expected plain real numbers"),
        ({"terminals": np.full(steps, 2)}, "terminals of"),
        ({"timeouts": np.full(steps, 0.5)}, "timeouts of"),
        ({"rewards": 1.0}, "has rewards of the shape ()"),
        ({name: values[:0] for name, values in content.items()}, "expected one for each step"),
        ({"rewards": np.full(steps, 3e38)}, "sum to more than single precision"),
    ):
        assert message in refused(write(tmp_path / "a.hdf5", content | change)), change
    for kept in (0, 8, 1000):
        (tmp_path / "b.hdf5").write_bytes((tmp_path / "a.hdf5").read_bytes()[:kept])
        assert "b.hdf5 cannot be read" in refused(tmp_path / "b.hdf5")


def test_actions_beyond_their_bounds(tmp_path: Path) -> None:
    content = arrays((4, 3))
    content["actions"][2] = 1 + 5e-7, -1 - 5e-7
    store = read(write(tmp_path / "a.hdf5", content))
    assert store.actions[2].tolist() == [1, -1] and "where rounding had moved them" in str(store.manifest["card"])
    content["actions"][3] = 1.5, -3
    path = write(tmp_path / "b.hdf5", content)
    assert "--clip_actions true" in refused(path)
    assert read(path, clip_actions=True).actions[3].tolist() == [1, -1]


def test_several_files_are_several_tasks(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.hdf5", arrays((4, 3))) for name in ("a-v0", "b_medium-v2", "a-v1")]
    assert "two of the files make the task 'a'. Name them with --tasks" in refused(*paths)
    store = import_data(D4RL(["x", "y", "z"]), paths, tmp_path / "out", quiet=True)
    assert store.task_names == ("x", "y", "z") and store.index["task"].tolist() == [0, 0, 1, 1, 2, 2]
    assert "names 1 tasks; expected one for each of 3 files" in refused(*paths, tasks=["x"])
    other = write(tmp_path / "c.hdf5", arrays((4, 3), 5, 1))
    message = refused(paths[0], other)
    assert "(3, 2)" in message and "(5, 1)" in message and "Union" in message


def test_locomotion_is_played_in_gymnasium_of_equal_dimensions(tmp_path: Path) -> None:
    names = ("halfcheetah_medium-v2", "walker2d_expert-v2")
    paths = [write(tmp_path / f"{name}.hdf5", arrays((4, 3), 17, 6)) for name in names]
    contents = D4RL().contents(paths)
    assert contents.horizon == 1000 and contents.versions == {"d4rl": "mujoco210"}
    environments = {"halfcheetah_medium": "HalfCheetah-v5", "walker2d_expert": "Walker2d-v5"}
    assert contents.suite == {
        "class_path": "mtorl.envs.Gymnasium",
        "init_args": {"environments": environments, "horizon": 1000},
    }
    assert "CC-BY-4.0" in str(contents.card.licence) and "not comparable to D4RL's" in str(contents.card.notes)
    ant = D4RL().contents([write(tmp_path / "ant_medium-v2.hdf5", arrays((4, 3), 111, 8))])
    assert ant.suite is None and "(111, 8), Ant-v5 has (105, 8): not played" in str(ant.card.notes)
    maze = D4RL().contents([write(tmp_path / "own.hdf5", arrays((4, 3)))])
    assert (maze.suite, maze.horizon, maze.versions, maze.card.licence) == (None, None, {}, None)


@pytest.mark.simulator
def test_an_imported_environment_has_the_dimensions_that_are_stated(tmp_path: Path) -> None:
    from mtorl.datasets.importers.d4rl_names import PLAYED
    from mtorl.envs.gymnasium import spaces_of

    for played in PLAYED.values():
        assert spaces_of(played.id)[:2] == played.dimensions and spaces_of(played.id).horizon == 1000
    store = read(write(tmp_path / "hopper-medium-v2.hdf5", arrays((4, 3), 11, 3)))
    assert store.suite["init_args"]["environments"] == {"hopper-medium": "Hopper-v5"}
    assert store.manifest["horizon"] == 1000


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert task_of("halfcheetah_medium-v2") == "halfcheetah_medium" and task_of("-v2") == "-v2"
    assert environment_of("antmaze-umaze-v2") is None and environment_of("Ant_maze_big-maze_noisy") is None
    assert environment_of("own") is None and environment_of("bullet-hopper-v0") is None
    assert environment_of("Ant-random-v0") == environment_of("ant_random") != None  # noqa: E711
    monkeypatch.setitem(sys.modules, "d4rl", None)
    name = "walker2d-medium-replay-v2"
    assert files_of(name, {}) == ["walker2d_medium_replay-v2.hdf5", "walker2d-medium-replay-v2.hdf5"]
    assert files_of("maze2d-open-v0", {"maze2d-open-v0": "http://x/y/maze2d-open-sparse.hdf5"})[0].endswith(
        "sparse.hdf5"
    )
    assert files_of("own", {}) == ["own.hdf5"]


def test_ids_are_looked_up_where_the_package_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    path = write(tmp_path / "hopper_medium-v2.hdf5", arrays((4, 3), 11, 3))
    assert D4RL().paths(["hopper-medium-v2", str(path)]) == [path, path]
    with pytest.raises(
        InputError, match=r"hopper_expert-v2\.hdf5.*Nothing is downloaded.*http://rail\.eecs.*DATASET_DIR"
    ):
        D4RL().paths(["hopper-expert-v2"])
    with pytest.raises(InputError, match="there is no such file or folder"):
        D4RL().paths(["some/where"])


def test_the_package_is_never_imported_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "d4rl"
    package.mkdir()
    (package / "__init__.py").write_text("raise Exception('You appear to be missing MuJoCo.')")
    assert len(urls()) >= 48
    (package / "infos.py").write_text("DATASET_URLS = {'maze-v1': 'http://there/dir/maze-sparse.hdf5'}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "d4rl", raising=False)
    assert urls() == {"maze-v1": "http://there/dir/maze-sparse.hdf5"} and "d4rl" not in sys.modules
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path))
    kept = write(tmp_path / "maze-sparse.hdf5", arrays((4, 3)))
    assert D4RL().paths(["maze-v1"]) == [kept]


def test_our_own_exports_are_the_same_data_set_again(store: EpisodeStore, tmp_path: Path) -> None:
    folder = HDF5(str(tmp_path / "out")).export(store)
    paths = sorted(folder.iterdir())
    again = import_data(D4RL(), paths, tmp_path / "again", quiet=True)
    assert again.task_names == store.task_names and again.suite == store.suite
    for name in ("observations", "actions", "rewards", "success", "terminated", "truncated", "index"):
        np.testing.assert_array_equal(getattr(again, name), getattr(store, name))
    foreign = write(tmp_path / "foreign.hdf5", arrays((4, 3), 4, 2))
    assert "was exported by mtorl" in refused(paths[0], foreign)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "mine-v3.hdf5", arrays((4, 3)))
    main(["import", "d4rl", str(path), "--out", str(tmp_path / "out"), "--quiet", "true"])
    assert "mine" in capsys.readouterr().out
    assert EpisodeStore(tmp_path / "out").suite["class_path"].endswith("Recorded")
