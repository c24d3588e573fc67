"""Archives of HarmoDT and MTDiff."""

import pickle
import pickletools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.importers import HarmoDT, Npz
from mtorl.datasets.importers import harmodt as module
from mtorl.datasets.store import STEP_COLUMNS, EpisodeStore
from mtorl.envs import MetaWorld
from mtorl.envs.importing import import_data

PROMPTS = Path(__file__).parents[2].parent / "shared/data/mtdiff_prompts"


def arrays(length: int, seed: int = 0, flat: bool = False) -> dict[str, NDArray[Any]]:
    """An episode as the archives hold it."""
    draw = np.random.default_rng(seed)
    states = draw.normal(size=(length + 1, 39)).astype(np.float32)
    found = {
        "observations": states[:-1],
        "actions": draw.uniform(-1, 1, (length, 4)).astype(np.float32),
        "rewards": draw.uniform(0, 10, (length, 1)).astype(np.float32),
        "next_observations": states[1:],
        "terminals": (np.arange(length) == length - 1).astype(np.float32)[:, None],
    }
    return {name: values.reshape(-1) if flat and values.shape[1] == 1 else values for name, values in found.items()}


def folder(place: Path, lengths: list[int], **options: Any) -> Path:
    place.mkdir(parents=True)
    for number, length in enumerate(lengths):
        np.savez(place / f"{number}.npz", **arrays(length, number, **options))
    return place


def prompts(path: Path, *episodes: Any) -> Path:
    content = np.empty(len(episodes), object)
    content[:] = episodes
    np.save(path, content, allow_pickle=True)
    return path


def imported(tmp_path: Path, *paths: Path, **options: Any) -> EpisodeStore:
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    return import_data(HarmoDT(**options), paths, tmp_path / "in", quiet=True)


def refused(tmp_path: Path, *paths: Path, **options: Any) -> str:
    """What is said; nothing is left."""
    with pytest.raises(InputError) as error:
        imported(tmp_path, *paths, **options)
    assert not (tmp_path / "in").exists() and not list(tmp_path.glob(".*"))
    return str(error.value)


def columns(store: EpisodeStore) -> list[str]:
    return [store.manifest["columns"][name]["sha256"] for name in ("observations", *STEP_COLUMNS, "episodes")]


LENGTHS = [3, 1, 500, 2, 2, 2, 2, 2, 2, 2, 4]
"""Eleven: 10.npz comes after 9.npz."""


def test_every_layout_gives_the_same_store(tmp_path: Path) -> None:
    store = imported(tmp_path, folder(tmp_path / "harmodt/reach-v2", LENGTHS).parent)
    assert store.task_names == ("reach-v3",) and store.index["length"].tolist() == LENGTHS
    episode, expected = store.episode(10), arrays(4, 10)
    np.testing.assert_array_equal(episode.observations[:-1], expected["observations"])
    np.testing.assert_array_equal(episode.observations[1:], expected["next_observations"])
    np.testing.assert_array_equal(episode.actions, expected["actions"])
    np.testing.assert_array_equal(episode.rewards, expected["rewards"][:, 0])
    assert episode.truncated.tolist() == [False, False, False, True]
    assert not store.terminated.any() and not store.success.any()

    expected_columns = columns(store)
    assert columns(imported(tmp_path, tmp_path / "harmodt/reach-v2")) == expected_columns, "the task's own folder"
    folder(tmp_path / "mtdiff/reach-v2/some_run/dataset", LENGTHS, flat=True)
    assert columns(imported(tmp_path, tmp_path / "mtdiff")) == expected_columns
    for path in (tmp_path / "mtdiff").rglob("*.npz"):
        content = dict(np.load(path))
        np.savez(path, dones=content.pop("terminals").astype(bool), **content)
    assert columns(imported(tmp_path, tmp_path / "mtdiff")) == expected_columns, "dones for terminals"
    dicts = [arrays(length, number) | {"task": "reach-v2"} for number, length in enumerate(LENGTHS)]
    assert columns(imported(tmp_path, prompts(tmp_path / "reach-v2_prompt.npy", *dicts))) == expected_columns
    files = imported(tmp_path, tmp_path / "harmodt")
    other = import_data(
        Npz(keys={"next_observations": ""}), [tmp_path / "harmodt/reach-v2"], tmp_path / "npz", quiet=True
    )
    np.testing.assert_array_equal(files.actions, other.actions)


def test_parts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST", {"near_optimal": 4, "sub_optimal": 2, "all": None})
    root = folder(tmp_path / "data/push-v2", [2, 3, 4, 5, 6]).parent
    folder(root / "reach-v2", [1, 7])
    (root / "reach-v2/1.npz").rename(root / "reach-v2/3.npz")
    (root / "notes.txt").write_text("x")
    for part, lengths in (
        ("near_optimal", [2, 3, 4, 5, 1, 7]),
        ("sub_optimal", [2, 3, 1, 7]),
        ("all", [2, 3, 4, 5, 6, 1, 7]),
    ):
        store = imported(tmp_path, root, part=part)
        assert store.index["length"].tolist() == lengths
        text = " ".join(store.manifest["card"]["notes"])
        assert f"push-v3 {len(lengths) - 2} of 5, reach-v3 2 of 2" in text
        assert "files that are left out: reach-v3 2." in text and "Beside the tasks there were notes.txt" in text
    assert "part is 'best'" in refused(tmp_path, root, part="best")


def test_the_suite_knows_success_and_the_data_do_not(tmp_path: Path) -> None:
    store = imported(tmp_path, folder(tmp_path / "data/reach-v2", [3]).parent)
    assert store.returns_only == ("reach-v3",) and store.manifest["horizon"] == 500
    assert store.manifest["versions"] == {"meta-world": "v2"}
    suite = MetaWorld(tasks=["reach-v3"])
    assert suite.returns_only == () and store.suite["class_path"] == "mtorl.envs.metaworld.MetaWorld"
    assert suite.task_names == tuple(store.suite["init_args"]["tasks"])


def test_what_is_wrong_is_named_with_its_place(tmp_path: Path) -> None:
    path = folder(tmp_path / "data/reach-v2", [3, 3]) / "1.npz"

    def said(**changes: Any) -> str:
        kept = {name: values for name, values in (arrays(3) | changes).items() if values is not None}
        np.savez(path, **kept)
        return refused(tmp_path, tmp_path / "data")

    rewards = arrays(3)["rewards"].astype(np.float64)
    rewards[2] = np.inf
    assert "1.npz, episode 1: rewards hold NaN or infinity at step 2" in said(rewards=rewards)
    following = arrays(3)["next_observations"].copy()
    following[1, 7] = np.nan
    assert "next observations hold NaN or infinity at step 1" in said(next_observations=following)
    following[1, 7] = 100
    assert "what follows step 1 is not what comes before" in said(next_observations=following)
    assert "lacks actions" in said(actions=None)
    assert "lacks terminals (or dones)" in said(terminals=None)
    assert "ends at step 0 of 3" in said(terminals=np.ones(3))
    assert "expected one each a step" in said(actions=np.zeros((2, 4)))
    assert "rewards have the shape (3, 2)" in said(rewards=np.zeros((3, 2)))
    assert "its action at step 0 reaches 1.1" in said(actions=np.full((3, 4), 1.1))
    assert "they look like images" in said(observations=np.zeros((3, 8, 8, 3)))
    assert "holds objects of Python" in said(rewards=np.array([None] * 3))
    assert "dimensions (40, 4)" in said(observations=np.zeros((3, 40)), next_observations=None)
    assert "dimensions" not in said(next_observations=np.zeros((3, 40)))
    np.savez(path, **arrays(501))
    assert "501" in refused(tmp_path, tmp_path / "data")
    np.savez(path, **arrays(3) | {"actions": np.full((3, 4), 1.1)})
    assert imported(tmp_path, tmp_path / "data", clip_actions=True).actions.max() == 1


def test_tasks_that_cannot_be(tmp_path: Path) -> None:
    folder(tmp_path / "data/raech-v2", [2])
    assert "unknown Meta-World task 'raech-v3'; did you mean reach-v3" in refused(tmp_path, tmp_path / "data")
    (tmp_path / "data/raech-v2").rename(tmp_path / "data/reach-v2")
    prompts(tmp_path / "data/reach-v2_prompt.npy", arrays(2))
    assert "both of the task reach-v3" in refused(tmp_path, tmp_path / "data")
    folder(tmp_path / "more/push-v2/a/dataset", [1])
    folder(tmp_path / "more/push-v2/b/dataset", [1])
    assert "holds 2 folders with episodes" in refused(tmp_path, tmp_path / "more")
    (tmp_path / "empty").mkdir()
    assert "in the layout of HarmoDT or MTDiff" in refused(tmp_path, tmp_path / "empty")
    (tmp_path / "link/reach-v2").mkdir(parents=True)
    (tmp_path / "link/reach-v2/0.npz").symlink_to(tmp_path / "data/reach-v2/0.npz")
    assert "is a link to a place outside of" in refused(tmp_path, tmp_path / "link")


class _Hostile:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.place)!r}, 'w')",)


def test_hostile_prompts(tmp_path: Path) -> None:
    path, place = tmp_path / "reach-v2_prompt.npy", tmp_path / "was_here"
    for value in (_Hostile(place), arrays(2) | {"task": _Hostile(place)}, arrays(2) | {"rewards": _Hostile(place)}):
        assert ".exec" in refused(tmp_path, prompts(path, arrays(2), value))
    assert not place.exists()
    for value, message in (
        ([1], "episode 1 is of the kind list; expected a dict"),
        (arrays(2) | {"rewards": [0, 1]}, "episode 1: rewards are no array of numbers"),
        (arrays(2) | {"rewards": np.array([None, 1])}, "rewards are no array of numbers"),
        (arrays(2) | {"actions": np.zeros((3, 4))}, "expected one each a step"),
    ):
        assert message in refused(tmp_path, prompts(path, arrays(2), value))
    assert "holds no episodes" in refused(tmp_path, prompts(path))
    assert "unpacks to more than" in refused(tmp_path, prompts(path, *[arrays(500)] * 600)), (
        "one that is named 600 times"
    )
    path.write_bytes(path.read_bytes()[:128] + pickle.dumps(eval))
    assert ".eval" in refused(tmp_path, path)


@pytest.mark.skipif(not PROMPTS.exists(), reason="needs MTDiff's prompt files")
def test_real_prompts(tmp_path: Path) -> None:
    store = imported(tmp_path, PROMPTS)
    assert store.task_names == ("drawer-open-v3", "push-v3", "reach-v3")
    assert store.index["length"].tolist() == [500] * 30
    content = (PROMPTS / "reach-v2_prompt.npy").read_bytes()[128:]
    values = [value for _, value, _ in pickletools.genops(content) if isinstance(value, bytes)]
    states, actions, rewards = ([it for it in values if len(it) == 4 * 500 * size] for size in (39, 4, 1))
    assert len(states) == 20 and len(actions) == 10 and len(rewards) == 20
    for number in range(10):
        episode = store.episode(20 + number)
        assert episode.observations[:-1].tobytes() == states[2 * number]
        assert episode.observations[1:].tobytes() == states[2 * number + 1]
        assert episode.actions.tobytes() == actions[number]
        assert episode.rewards.tobytes() == rewards[2 * number]
    returns = [store.episode(number).rewards.sum(dtype=np.float64) for number in range(20, 30)]
    assert min(returns) >= 2808 and max(returns) <= 4805
