"""Data sets of LeRobot, written here in the layout of its writers."""

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.importers import LeRobot, lerobot_folder, lerobot_rows, parquet_reader
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.importing import import_data

pytest.importorskip("pyarrow")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PUSH, ASSEMBLY, DOOR = "push-the-puck-to-a-goal", "assembly-v3", "öffne-die-tür"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What writes data sets."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("corpus_lerobot")


def some(made: Any, lengths: tuple[int, ...] = (4, 1, 6, 3), tasks: tuple[int, ...] = (0, 1, 0, 2)) -> list[Any]:
    """Episodes of these lengths and tasks."""
    draw, found = np.random.default_rng(0), []
    for length, task in zip(lengths, tasks, strict=True):
        last = np.arange(length) == length - 1
        found.append(
            {
                "observation.state": draw.normal(size=(length, 4)).astype(np.float32),
                "observation.environment_state": draw.normal(size=(length, 3)),
                "action": draw.uniform(-1, 1, (length, 2)).astype(np.float32),
                "next.reward": draw.normal(size=length).astype(np.float32),
                "next.success": last & (task == 0),
                "next.done": last & (length > 1),
                "frame_index": np.arange(length),
                "task_index": np.full(length, task),
            }
        )
    return list(made.numbered(found))


def load(folder: Path, **options: Any) -> EpisodeStore:
    store = import_data(LeRobot(**options), [folder], folder / "in", quiet=True)
    store.verify()
    return store


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        load(folder, **options)
    assert not (folder / "in").exists()
    return str(error.value)


def notes(store: EpisodeStore) -> str:
    return " ".join(store.manifest["card"]["notes"])


@pytest.mark.parametrize("version", ["v2.0", "v2.1", "v3.0"])
@pytest.mark.parametrize("fixed", [True, False])
def test_values_are_kept(made: Any, tmp_path: Path, version: str, fixed: bool) -> None:
    found = some(made)
    made.write(tmp_path, found, version, fixed)
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\ntask_categories:\n- robotics\n---\n")
    store = load(tmp_path)
    assert store.task_names == (PUSH, ASSEMBLY, DOOR) and store.returns_only == ()
    assert [len(it) for it in store] == [4, 1, 6, 3]
    for ours, theirs in zip(store, found, strict=True):
        np.testing.assert_array_equal(ours.observations[:-1], theirs["observation.state"])
        np.testing.assert_array_equal(ours.observations[-1], theirs["observation.state"][-1])
        np.testing.assert_array_equal(ours.actions, theirs["action"])
        np.testing.assert_array_equal(ours.rewards, theirs["next.reward"])
        np.testing.assert_array_equal(ours.success, theirs["next.success"])
        assert not ours.terminated.any() and ours.truncated.tolist() == [False] * (len(ours) - 1) + [True]
    card = store.manifest["card"]
    assert card["licence"] == "apache-2.0"
    assert card["origin"] == f"LeRobot data set {tmp_path.name}: {version}, robot sawyer, 80 steps a second"
    assert f"Not read of {tmp_path.name}: next.done, observation.environment_state, observation.image." in notes(store)
    assert store.suite["class_path"].endswith("Recorded")


def test_what_is_missing_is_named(made: Any, tmp_path: Path) -> None:
    """Data of 49 tasks say so, where 50 were announced."""
    found = some(made, (4, 2), (0, 2))
    (tmp_path / "a").mkdir()
    made.write(tmp_path / "a", found, total_tasks=50, total_episodes=2500)
    store = load(tmp_path / "a")
    assert store.task_names == (PUSH, DOOR)
    assert "No episodes in a of the tasks 1 (assembly-v3)." in notes(store)
    assert "a says that it has 2500 episodes; there are 2." in notes(store)
    assert "a says that it has 50 tasks; there are names of 3." in notes(store)

    (tmp_path / "b").mkdir()
    made.write(tmp_path / "b", some(made, (4, 2), (0, 7)))
    message = refused(tmp_path / "b")
    assert "1 episodes are of the task 7, which has no name" in message and "--tasks '{\"7\": NAME}'" in message
    assert load(tmp_path / "b", tasks={"7": "reach-v3"}).task_names == (PUSH, "reach-v3")


def test_names_of_tasks(made: Any, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        made.write(tmp_path / name, some(made))
    assert "--tasks names the tasks ['Push']" in refused(tmp_path / "a", tasks={"Push": "x"})
    store = load(tmp_path / "a", tasks={"Push the puck to a goal": "push-v3", "2": "push-v3"})
    assert store.task_names == ("push-v3", ASSEMBLY) and store.index["task"].tolist() == [0, 1, 0, 0]
    made.write_tasks(tmp_path / "b", [0, 1, 2], ["Open the door", "open the door!", "?!"])
    message = refused(tmp_path / "b")
    assert "'Open the door' and 'open the door!' would both be called open-the-door" in message
    assert load(tmp_path / "b", tasks={"1": "other"}).task_names == ("open-the-door", "other", "task-2")


def test_columns_are_chosen(made: Any, tmp_path: Path) -> None:
    found = some(made)
    made.write(tmp_path, found)
    chosen = ["observation.environment_state", "observation.state"]
    store = load(tmp_path, observations=chosen)
    wide = np.concatenate([found[2][name] for name in chosen], axis=1).astype(np.float32)
    np.testing.assert_array_equal(store.episode(2).observations[:-1], wide)
    other = tmp_path / "other"
    other.mkdir()
    images = {name: {"dtype": "video", "shape": [9, 9, 3]} for name in ("observation.image", "observation.wrist")}
    made.write(other, found, features=images | {"action": {"dtype": "float32", "shape": [2]}})
    message = refused(other)
    assert "has no observation.state; it has ['observation.image', 'observation.wrist', 'action']" in message
    assert "Images and videos are not read: agents here see states." in message
    with pytest.raises(InputError, match="expected columns, each once"):
        LeRobot(observations=["a", "a"])


def test_flags_and_rewards(made: Any, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        folder.mkdir()
    made.write(folders[0], some(made))
    store = load(folders[0], done_terminates=True)
    assert [bool(it.terminated[-1]) for it in store] == [True, False, True, True]
    assert [bool(it.truncated[-1]) for it in store] == [False, True, False, False]
    assert "does not say whether" not in notes(store)

    found = some(made)
    for it in found:
        it["next.truncated"] = it["next.done"] & (len(it["index"]) == 6)
        it["next.done"][:1] = True  # of the first step, too
        del it["next.success"], it["next.reward"]
    made.write(folders[1], found)
    assert "has no next.reward" in refused(folders[1])
    assert "next.done is set at step 0 of 4" in refused(folders[1], zero_rewards=True, done_terminates=True)
    store = load(folders[1], zero_rewards=True)
    assert store.returns_only == store.task_names and not store.rewards.any()
    assert "b has no rewards: 0 stands in their place." in notes(store) and "all count as cut off" in notes(store)

    for it in found:
        it["next.done"] = np.arange(len(it["index"])) == len(it["index"]) - 1
    made.write(folders[2], found)
    store = load(folders[2], zero_rewards=True, done_terminates=True)
    assert [bool(it.terminated[-1]) for it in store] == [True, True, False, True]

    far = some(made)
    far[2]["action"][3, 1] = -2.5
    made.write(folders[3], far)
    assert "file-001.parquet, episode 2: its action at step 3 reaches 2.5" in refused(folders[3])
    assert load(folders[3], clip_actions=True).episode(2).actions[3, 1] == -1


def test_an_episode_may_go_on_in_the_next_file(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And blocks end anywhere."""
    found = some(made, (40, 1, 6, 30, 17), (0, 1, 0, 2, 1))
    (tmp_path / "whole").mkdir()
    made.write(tmp_path / "whole", found)
    whole = load(tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    made.write_meta(tmp_path / "cut", found, "v3.0")
    columns = made.joined(found)
    for number, (start, stop) in enumerate([(0, 3), (3, 3), (3, 47), (47, 94)]):
        rows = {name: values[start:stop] for name, values in columns.items()}
        made.write_rows(
            tmp_path / f"cut/data/chunk-{number // 2:03d}/file-{number % 2:03d}.parquet", rows, [stop - start]
        )
    monkeypatch.setattr(lerobot_rows, "MARK_ROWS", 7)
    monkeypatch.setattr(lerobot_rows, "BLOCK", 500)
    lerobot_rows._runs.cache_clear()
    assert load(tmp_path / "cut").manifest["columns"] == whole.manifest["columns"]
    monkeypatch.setattr(lerobot_rows, "LONGEST", 2000)
    with pytest.raises(InputError, match="episode 0: its 40 steps take more than 2000 bytes"):
        list(LeRobot().episodes([tmp_path / "cut"]))
    lerobot_rows._runs.cache_clear()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("frame_index", lambda it: it[::-1], "episode 0: its step 1 does not follow the step before"),
        ("episode_index", lambda it: it[::-1], "stands behind a later episode"),
        ("task_index", lambda it: np.arange(len(it)), "its step 1 has another task than the step before"),
        ("frame_index", lambda it: it + 1, "episode 1: its step 1 is the first one that is there"),
        ("episode_index", lambda it: it - 1, "expected 14 whole numbers, none below 0"),
        ("episode_index", lambda it: it.astype(np.uint64) + np.uint64(2**63), "none below 0"),
        ("task_index", lambda it: it * 0.5, "task_index of the rows from 0 is float64"),
        ("next.success", lambda it: it + 0.5, "expected flags"),
        ("action", lambda it: it[..., None], "action is list<"),
        ("action", lambda it: it * np.nan, "actions hold NaN or infinity at step 0"),
    ],
)
def test_rows_that_are_no_episodes(made: Any, tmp_path: Path, name: str, change: Any, message: str) -> None:
    found = some(made)
    columns = made.joined(found)
    made.write_meta(tmp_path, found, "v3.0")
    path = tmp_path / "data/chunk-000/file-000.parquet"
    made.write_rows(path, columns | {name: np.ascontiguousarray(change(columns[name]))}, [14])
    assert message in refused(tmp_path)


def test_what_is_no_data_set_of_lerobot(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_LEROBOT_HOME", str(tmp_path / "home"))
    with pytest.raises(InputError, match=r"nowhere: there is no data set of LeRobot, neither there nor in .*home"):
        LeRobot().paths(["nowhere"])
    (tmp_path / "home/some/set").mkdir(parents=True)
    made.write(tmp_path / "home/some/set", some(made))
    assert LeRobot().paths(["some/set"]) == [tmp_path / "home/some/set"]
    for field, message in (
        ({"codebase_version": "v1.6"}, "says version 'v1.6'; expected v2.0, v2.1 or v3.0"),
        ({"features": {"action": 3}}, "features.action is 3"),
        ({"codebase_version": "v2.1"}, "holds no tasks.jsonl"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        made.write(folder, some(made), **field)
        assert message in refused(folder)
    with pytest.raises(InputError, match=r"pip install 'mtorl\[lerobot\]'"):
        monkeypatch.setattr(parquet_reader, "find_spec", lambda name: None)
        LeRobot().contents([tmp_path / "home/some/set"])


def test_the_cache_of_hugging_face_holds_links(made: Any, tmp_path: Path) -> None:
    """Into a folder beside all versions of a data set; links that leave that one are refused."""
    home = tmp_path / "datasets--some--set"
    folder, blobs = home / "snapshots/1a2b", home / "blobs"
    folder.mkdir(parents=True)
    made.write(folder, some(made))
    plain = [it.checked(4, 2) for it in LeRobot().episodes([folder])]
    blobs.mkdir()
    for number, path in enumerate(sorted(it for it in folder.rglob("*") if it.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))
    for ours, theirs in zip(LeRobot().episodes([folder]), plain, strict=True):
        np.testing.assert_array_equal(ours.observations, theirs.observations)
    blobs.rename(tmp_path / "blobs")
    blobs.symlink_to(tmp_path / "blobs")
    with pytest.raises(InputError, match="is a link to a place outside of"):
        lerobot_folder.read_folder(folder)


def test_several_data_sets_share_their_tasks(made: Any, tmp_path: Path) -> None:
    for name, tasks in (("a", (0, 1)), ("b", (2, 0))):
        (tmp_path / name).mkdir()
        made.write(tmp_path / name, some(made, (3, 2), tasks))
    store = import_data(LeRobot(), [tmp_path / "a", tmp_path / "b"], tmp_path / "in", quiet=True)
    assert store.task_names == (PUSH, ASSEMBLY, DOOR) and store.index["task"].tolist() == [0, 1, 2, 0]


def test_the_command(made: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder, out = tmp_path / "set", tmp_path / "out"
    folder.mkdir()
    made.write(folder, some(made))
    names = json.dumps({"Push the puck to a goal": "towards-0"})
    chosen = ["--observations", "observation.state", "observation.environment_state"]
    assert main(["import", str(folder), "--out", str(out)]) == 2
    assert f"`mtorl import lerobot {folder} --out {out}`" in capsys.readouterr().err
    assert main(["import", "lerobot", str(folder), "--out", str(out), "--tasks", names, *chosen]) == 0
    assert main(["info", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "towards-0" in shown
    assert "Not read of set" in " ".join(shown.split())
    assert EpisodeStore(out).observation_dim == 7
    assert EpisodeStore(out).manifest["source"] == {"importer": "LeRobot", "files": [str(folder)]}


def test_files_must_be_alike(made: Any, tmp_path: Path) -> None:
    found = some(made)
    made.write(tmp_path, found)
    columns = made.joined(found[2:])
    path = tmp_path / "data/chunk-000/file-001.parquet"
    made.write_rows(path, columns | {"observation.state": np.zeros((9, 5), np.float32)}, [9])
    assert "file-001.parquet: observation.state of the rows from 0 has the shape (9, 5)" in refused(tmp_path)
    made.write_rows(path, columns | {"more": np.zeros(9)}, [9])
    assert "file-001.parquet has other columns than" in refused(tmp_path)
