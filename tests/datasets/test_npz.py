"""Arrays of strangers in .npz files."""

import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mtorl import InputError
from mtorl.datasets.importers import Npz
from mtorl.datasets.importers.npz_layout import _BLOCK
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.importing import import_data


def steps(*lengths: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Episodes one after the other."""
    draw, count = np.random.default_rng(seed), sum(lengths)
    ends = np.zeros(count, bool)
    ends[np.cumsum(lengths) - 1] = True
    return {
        "observations": draw.normal(size=(count, 3)).astype(np.float32),
        "actions": draw.uniform(-1, 1, (count, 2)).astype(np.float32),
        "rewards": draw.random(count).astype(np.float32),
        "terminals": ends,
    }


def saved(path: Path, arrays: dict[str, Any], pack: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (np.savez_compressed if pack else np.savez)(path, **arrays)
    return path


def imported(tmp_path: Path, *paths: Path, **options: Any) -> EpisodeStore:
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    return import_data(Npz(**options), paths, tmp_path / "in", quiet=True)


def refused(tmp_path: Path, *paths: Path, **options: Any) -> str:
    """What is said; nothing is left."""
    with pytest.raises(InputError) as error:
        imported(tmp_path, *paths, **options)
    assert not (tmp_path / "in").exists() and not list(tmp_path.glob(".*"))
    return str(error.value)


def notes(store: EpisodeStore) -> str:
    return " ".join(store.manifest["card"]["notes"])


@pytest.mark.parametrize("pack", [False, True])
def test_episodes_end_at_flags(tmp_path: Path, pack: bool) -> None:
    lengths = (1, 10_000, 3, 2 * _BLOCK + 1, _BLOCK, 5)
    arrays = steps(*lengths)
    arrays["timeouts"] = np.zeros(len(arrays["rewards"]))
    arrays["timeouts"][[0, 10_000]] = 1
    arrays["terminals"][[0, -1]] = False
    arrays["rewards"] = arrays["rewards"][:, None].astype(np.float64)
    store = imported(tmp_path, saved(tmp_path / "run.npz", arrays, pack))
    assert store.index["length"].tolist() == [*lengths] and store.manifest["horizon"] == max(lengths)
    ends = np.cumsum(lengths) - 1
    assert np.flatnonzero(store.terminated).tolist() == ends[1:-1].tolist()
    assert np.flatnonzero(store.truncated).tolist() == [0, 10_000, ends[-1]]
    np.testing.assert_array_equal(store.actions, arrays["actions"])
    np.testing.assert_array_equal(store.rewards, arrays["rewards"][:, 0].astype(np.float32))
    first = store.episode(1).observations
    np.testing.assert_array_equal(first[:-1], arrays["observations"][1:10_001])
    np.testing.assert_array_equal(first[-1], first[-2])
    assert "last episode of run.npz has no end" in notes(store) and "observation stands in its place" in notes(store)
    assert store.task_names == store.returns_only == ("run",)


def test_next_observations_end_an_episode(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).normal(size=(8, 3))
    arrays = steps(4, 2) | {"observations": whole[[0, 1, 2, 3, 5, 6]], "next_observations": whole[[1, 2, 3, 4, 6, 7]]}
    store = imported(tmp_path, saved(tmp_path / "a.npz", arrays))
    np.testing.assert_array_equal(store.observations, whole.astype(np.float32))
    arrays["next_observations"][4] += 1
    path = saved(tmp_path / "a.npz", arrays)
    assert "episode 1: what follows step 0 is not what comes before" in refused(tmp_path, path)
    store = imported(tmp_path, path, keys={"next_observations": ""})
    assert "Not read of the files: next_observations." in notes(store)


def test_a_file_without_flags_is_an_episode(tmp_path: Path) -> None:
    for number in (2, 10, 0):
        arrays = steps(number + 1, seed=number)
        del arrays["terminals"]
        saved(tmp_path / "data/run" / f"{number}.npz", arrays)
    draw = np.random.default_rng(5)
    state = {"observations": draw.normal(size=(5, 3)), "actions": np.zeros((4, 2)), "rewards": np.arange(4)}
    saved(tmp_path / "data/walk/x.npz", state)
    store = imported(tmp_path, tmp_path / "data")
    assert store.task_names == ("run", "walk")
    assert store.index["length"].tolist() == [1, 3, 11, 4], "numbers in their order"
    np.testing.assert_array_equal(store.episode(3).observations, state["observations"].astype(np.float32))
    assert store.rewards[-4:].tolist() == [0, 1, 2, 3] and not store.terminated.any()
    assert np.flatnonzero(store.truncated).tolist() == [0, 3, 14, 18]

    both = imported(tmp_path, tmp_path / "data/run", tmp_path / "data/walk/x.npz", tasks=["one", "one"])
    assert both.task_names == ("one",) and both.index["length"].tolist() == [1, 3, 11, 4]
    saved(tmp_path / "data/run/3.npz", steps(2))
    assert "3.npz: its kind steps differ from those of the first file of run, file" in refused(
        tmp_path, tmp_path / "data"
    )


def test_ogbench_is_read_as_by_its_own_loader(tmp_path: Path) -> None:
    """The rule of ogbench/utils.py, load_dataset: written out again here."""
    lengths = (5, 2, 1, _BLOCK, 4)
    arrays = steps(*lengths)
    del arrays["rewards"]
    arrays["terminals"] = arrays["terminals"].astype(np.float32)
    path = saved(tmp_path / "maze.npz", arrays | {"qpos": np.zeros((sum(lengths), 7))})
    store = imported(tmp_path, path)

    inner = arrays["terminals"] == 0
    following = np.concatenate([[False], inner[:-1]])
    np.testing.assert_array_equal(store.actions, arrays["actions"][inner])
    whole = [store.episode(number).observations for number in range(4)]
    np.testing.assert_array_equal(np.concatenate([it[:-1] for it in whole]), arrays["observations"][inner])
    np.testing.assert_array_equal(np.concatenate([it[1:] for it in whole]), arrays["observations"][following])
    ends = np.concatenate([arrays["terminals"][1:], [1.0]])[inner]
    np.testing.assert_array_equal(store.truncated, ends)
    assert not store.terminated.any() and not store.rewards.any()
    for words in ("Not read of the files: qpos", "hold no rewards; all are 0", "its last state, as in OGBench"):
        assert words in notes(store)

    alone = saved(tmp_path / "alone.npz", arrays | {"terminals": np.ones(sum(lengths))})
    assert "alone.npz: every episode of alone is a state without a step" in refused(tmp_path, alone)

    with_rewards = saved(tmp_path / "maze.npz", arrays | {"rewards": np.arange(sum(lengths))})
    assert imported(tmp_path, with_rewards, layout="ogbench").rewards[:5].tolist() == [0, 1, 2, 3, 5]
    every = imported(tmp_path, saved(path, arrays), layout="steps", keys={"rewards": ""})
    assert every.index["length"].tolist() == [*lengths]


def test_arrays_of_other_names(tmp_path: Path) -> None:
    arrays = steps(3, 2)
    success = np.array([0, 1, 0, 0, 0], np.int8)
    other = {"obs": arrays["observations"].astype(np.float64), "act": np.asfortranarray(arrays["actions"])}
    other |= {
        "reward": arrays["rewards"],
        "dones": arrays["terminals"].astype(np.int64),
        "won": success,
        "extra": success,
    }
    path = saved(tmp_path / "run.npz", other)
    message = refused(tmp_path, path)
    assert "has no arrays observations, actions, rewards; it has obs, act, reward, dones, won, extra" in message
    keys = {"observations": "obs", "actions": "act", "rewards": "reward", "success": "won"}
    store = imported(tmp_path, path, keys=keys)
    assert store.returns_only == () and store.success.tolist() == [False, True, False, False, False]
    assert store.index["length"].tolist() == [3, 2] and "Not read of the files: extra." in notes(store)
    np.testing.assert_array_equal(store.actions, arrays["actions"])
    assert "a name in keys is 'obs'" in refused(tmp_path, path, keys={"obs": "observations"})
    assert "layout is 'rows'" in refused(tmp_path, path, layout="rows")


def test_what_is_wrong_is_named_with_its_place(tmp_path: Path) -> None:
    good = steps(3, 4)

    def said(**arrays: Any) -> str:
        kept = {name: values for name, values in (good | arrays).items() if values is not None}
        return refused(tmp_path, saved(tmp_path / "run.npz", kept))

    odd = good["rewards"].copy()
    odd[4] = np.nan
    assert "run.npz, episode 1: rewards hold NaN or infinity at step 1" in said(rewards=odd)
    assert "run.npz, episode 0 hold 1e+200" in said(observations=good["observations"].astype(float) * 0 + 1e200)
    assert "episode 0: its action at step 0 reaches 3; expected [-1, 1]" in said(actions=np.full((7, 2), 3.0))
    assert "expected flags" in said(terminals=np.arange(7))
    assert "expected flags" in said(success=np.full(7, 0.5))
    assert "observations have the shape (7, 8, 8, 3); they look like images" in said(
        observations=np.zeros((7, 8, 8, 3))
    )
    assert "they look like images" in said(observations=np.zeros((7, 8, 8), np.uint8))
    assert "as if chosen from a list" in said(actions=np.zeros(7, int))
    assert "rewards have the shape (6,)" in said(rewards=np.zeros(6))
    assert "rewards have the shape (7, 2)" in said(rewards=np.zeros((7, 2)))
    assert "observations have the shape (8, 3)" in said(observations=np.zeros((8, 3)))
    assert "observations have the shape ()" in said(observations=np.zeros(()))
    assert "observations have the shape (7, 0)" in said(observations=np.zeros((7, 0)))
    assert "holds objects of Python" in said(rewards=np.array([None] * 7))
    assert "of type <c16" in said(rewards=np.zeros(7, complex))
    assert "header that is not understood" in said(rewards=np.zeros(7, [("a", "f4"), ("b", "f4")]))
    assert "next_observations have 4 numbers each" in said(next_observations=np.zeros((7, 4)))
    assert "no steps" in said(**{name: values[:0] for name, values in good.items()})
    assert "has no arrays actions" in said(actions=None)
    clipped = imported(
        tmp_path, saved(tmp_path / "run.npz", good | {"actions": np.full((7, 2), 3.0)}), clip_actions=True
    )
    assert (clipped.actions == 1).all()


def test_tasks_that_do_not_belong_together(tmp_path: Path) -> None:
    first = saved(tmp_path / "a/run.npz", steps(3))
    wide = saved(tmp_path / "b/walk.npz", steps(3) | {"observations": np.zeros((3, 5))})
    assert "run has observations and actions of (3, 2) numbers, walk of (5, 2)" in refused(tmp_path, first, wide)
    again = saved(tmp_path / "b/run.npz", steps(3))
    assert "two of the paths make the task 'run'" in refused(tmp_path, first, again)
    assert "--tasks names 1 tasks" in refused(tmp_path, first, again, tasks=["run"])
    (tmp_path / "empty").mkdir()
    assert "holds no .npz files" in refused(tmp_path, tmp_path / "empty")


def test_links_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    secret = saved(tmp_path / "elsewhere/run.npz", steps(3))
    (tmp_path / "given/inner").mkdir(parents=True)
    link = tmp_path / "given/0.npz"
    link.symlink_to(secret)
    assert "is a link to a place outside of" in refused(tmp_path, tmp_path / "given")
    link.unlink()
    link = tmp_path / "given/inner/0.npz"
    link.symlink_to("../../elsewhere/run.npz")
    assert "is a link to a place outside of" in refused(tmp_path, tmp_path / "given")
    link.unlink()
    (tmp_path / "given/task").symlink_to(secret.parent)
    assert "is a link to a place outside of" in refused(tmp_path, tmp_path / "given")
    (tmp_path / "given/task").unlink()
    shutil.copy(secret, tmp_path / "given/inner/1.npz")
    (tmp_path / "given/inner/2.npz").symlink_to("1.npz")
    assert imported(tmp_path, tmp_path / "given").index["length"].tolist() == [3, 3], "links inside are"
    (tmp_path / "given/loop").symlink_to("loop")
    refused(tmp_path, tmp_path / "given/loop/x")


def test_bombs_and_damage_are_refused(tmp_path: Path) -> None:
    bomb = saved(tmp_path / "bomb.npz", steps(3) | {"observations": np.zeros((10_000_000, 3), np.float32)}, True)
    assert bomb.stat().st_size < 1 << 18
    assert "observations unpacks to 120000128 bytes, more than 64 times" in refused(tmp_path, bomb)

    path = saved(tmp_path / "run.npz", steps(30))
    content = path.read_bytes()
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "other.npz", "w", method) as new:
            for name in old.namelist():
                new.writestr(name, old.read(name))
        assert "is packed by method" in refused(tmp_path, tmp_path / "other.npz")
    path.write_bytes(content[:-30])
    assert "cannot be read as an archive of arrays" in refused(tmp_path, path)
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"(30, 3)", b"(31, 3)"))
    assert "its shape (31, 3) takes 372 bytes, it has 360" in refused(tmp_path, path)
    place = content.index(b"(30, 3)") + 200
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    assert "Bad CRC-32" in refused(tmp_path, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("observations.npy", b"x")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("observations.npy", b"x")
    assert "two arrays of the same name" in refused(tmp_path, path)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(140):
            member = zipfile.ZipInfo(f"{number}.npy")
            member.comment = b" " * 65_000
            archive.writestr(member, b"")
    assert "where 4194304 are the most" in refused(tmp_path, path)
