"""Data sets of Minari, made here with h5py: nothing of Minari is needed to read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mtorl import InputError
from mtorl.commands.main import main
from mtorl.datasets.importers import Minari
from mtorl.datasets.importers.minari_metadata import read_set
from mtorl.datasets.minari_folders import local_ids
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import Recorded
from mtorl.envs.importing import import_data

WIDTH, ACTIONS = 3, 2
Change = Callable[[dict[str, Any]], Any]


def box(size: int, low: float | list = -1.0, high: float | list = 1.0) -> str:
    bounds = [bound if isinstance(bound, list) else [bound] * size for bound in (low, high)]
    return json.dumps({"type": "Box", "dtype": "float32", "shape": [size], "low": bounds[0], "high": bounds[1]})


def spec(name: str, **fields: Any) -> str:
    point = "gymnasium.envs.mujoco.half_cheetah_v5:HalfCheetahEnv"
    return json.dumps({"id": name, "entry_point": point, "max_episode_steps": 50, "kwargs": {}} | fields)


def arrays(length: int, seed: int) -> dict[str, Any]:
    """One episode."""
    draw = np.random.default_rng(seed)
    return {
        "observations": draw.normal(size=(length + 1, WIDTH)).astype(np.float32),
        "actions": draw.uniform(-1, 1, (length, ACTIONS)).astype(np.float32),
        "rewards": draw.random(length).astype(np.float32),
        "terminations": np.arange(length) == length,
        "truncations": np.arange(length) == length - 1,
    }


def make(
    root: Path, name: str = "some/points-v1", lengths: tuple[int, ...] = (4, 1, 6), change: Any = None, **said: Any
) -> Path:
    """A data set; `change` is called with each episode's arrays, `said` is what its metadata say as well."""
    folder = root / name
    (folder / "data").mkdir(parents=True)
    metadata = {
        "total_episodes": len(lengths),
        "total_steps": sum(lengths),
        "data_format": "hdf5",
        "observation_space": box(WIDTH, -np.inf, np.inf),
        "action_space": box(ACTIONS),
        "dataset_id": name,
        "minari_version": "0.5.4",
    }
    kept = {key: value for key, value in (metadata | said).items() if value is not ...}
    (folder / "data/metadata.json").write_text(json.dumps(kept))
    with h5py.File(folder / "data/main_data.hdf5", "w") as file:
        for number, length in enumerate(lengths):
            values = arrays(length, number)
            if change:
                change(values)
            group = file.create_group(f"episode_{number}")
            group.attrs["seed"] = number + 7
            for key, array in values.items():
                group[key] = array
    return folder


def load(folder: Path, **options: Any) -> EpisodeStore:
    return import_data(Minari(**options), [folder], folder / "in", quiet=True)


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(InputError) as error:
        load(folder, **options)
    assert not (folder / "in").exists()
    return str(error.value)


def test_values_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    store = load(make(tmp_path, description="two\nlines", algorithm_name="PPO", author=["a", "b"]))
    assert store.task_names == store.returns_only == ("some/points",)
    assert [len(it) for it in store] == [4, 1, 6] and store.index["seed"].tolist() == [7, 8, 9]
    for number, it in enumerate(store):
        values = arrays(len(it), number)
        for ours, theirs in (
            (it.observations, "observations"),
            (it.actions, "actions"),
            (it.rewards, "rewards"),
            (it.terminated, "terminations"),
            (it.truncated, "truncations"),
        ):
            np.testing.assert_array_equal(ours, values[theirs])
    assert store.suite["class_path"].endswith("Recorded")
    assert (
        store.manifest["card"]["origin"]
        == "Minari data set points-v1: two lines, actions by PPO, Minari 0.5.4, by a, b"
    )
    store.verify()


def test_kinds_of_numbers_that_mean_the_same(tmp_path: Path) -> None:
    def wide(values: dict[str, Any]) -> None:
        for key in ("observations", "actions", "rewards"):
            values[key] = values[key].astype(np.float64)
        values["rewards"] = values["rewards"][:, None]
        values["terminations"] = values["terminations"].astype(np.int64)[:, None]
        values["truncations"] = values["truncations"].astype(np.float32)

    plain, other = load(make(tmp_path / "a")), load(make(tmp_path / "b", change=wide))
    assert plain.manifest["columns"] == other.manifest["columns"]

    def whole(values: dict[str, Any]) -> None:
        values["observations"] = np.arange(values["observations"].size).reshape(-1, WIDTH)

    assert load(make(tmp_path / "c", change=whole)).observations[1].tolist() == [3, 4, 5]


@pytest.mark.parametrize("key", ["success", "is_success"])
@pytest.mark.parametrize("reset", [0, 1])
def test_success_is_in_the_infos(tmp_path: Path, key: str, reset: int) -> None:
    def with_success(values: dict[str, Any]) -> None:
        flags = np.arange(len(values["rewards"])) >= 2
        values[f"infos/{key}"] = np.concatenate([np.zeros(reset, bool), flags])

    store = load(make(tmp_path, change=with_success))
    assert store.returns_only == ()
    assert [int(it.success.sum()) for it in store] == [2, 0, 4] and store.episode(0).success[2]


def test_actions_are_mapped_from_their_bounds(tmp_path: Path) -> None:
    def stretched(values: dict[str, Any]) -> None:
        values["actions"] = values["actions"].astype(np.float64) * [0.4, 1] + [0.6, 0]

    plain = load(make(tmp_path / "a"))
    bounds = {"low": [0.2, -np.inf], "high": [1.0, np.inf]}
    mapped = load(make(tmp_path / "b", change=stretched, action_space=box(ACTIONS, **bounds)))
    np.testing.assert_allclose(mapped.actions, plain.actions, atol=1e-6)
    np.testing.assert_array_equal(mapped.actions[:, 1], plain.actions[:, 1])
    assert any("mapped from their bounds" in note for note in mapped.manifest["card"]["notes"])
    assert not any("mapped from their bounds" in note for note in plain.manifest["card"]["notes"])

    def beyond(values: dict[str, Any]) -> None:
        values["actions"][0] = [1 + 5e-7, -1 - 5e-7]

    assert np.abs(load(make(tmp_path / "c", change=beyond)).actions[0]).tolist() == [1, 1]

    def far(values: dict[str, Any]) -> None:
        if len(values["actions"]) == 6:
            values["actions"][3] = [0.5, -1.25]

    folder = make(tmp_path / "d", change=far)
    assert "main_data.hdf5, episode 2: its action at step 3 reaches 1.25" in refused(folder)
    assert load(folder, clip_actions=True).episode(2).actions[3].tolist() == [0.5, -1]


def test_environments_of_gymnasium_can_be_played_again(tmp_path: Path) -> None:
    for name, fields, plain in (
        ("HalfCheetah-v5", {}, True),
        ("HalfCheetah-v5", {"kwargs": {"forward_reward_weight": 2}}, False),
        ("HalfCheetah-v5", {"additional_wrappers": [{"name": "x"}]}, False),
        ("HalfCheetah-v5", {"entry_point": "hostile:Env"}, False),
        ("hostile:HalfCheetah-v5", {}, False),
        ("Nowhere-v5", {}, False),
    ):
        folder = make(tmp_path / str(len(list(tmp_path.iterdir()))), env_spec=spec(name, **fields))
        found = Minari().contents([folder])
        assert found.horizon == 50
        expected = {"class_path": "mtorl.envs.Gymnasium", "init_args": {"environments": {"points": name}}}
        assert found.suite == (expected if plain else None), name
    assert Minari(horizon=70).contents([folder]).horizon == 70


def test_several_sets_are_tasks_of_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    first, second = make(tmp_path, "a/x-v0"), make(tmp_path, "a/y-v3", (2, 2))
    store = import_data(Minari(), [first, second], tmp_path / "in", quiet=True)
    assert store.task_names == ("a/x", "a/y")
    assert store.index["task"].tolist() == [0, 0, 0, 1, 1]
    named = import_data(Minari(tasks=["p", "q"]), ["a/x-v0", str(second)], tmp_path / "named", quiet=True)
    assert named.task_names == ("p", "q") and named.manifest["columns"] == store.manifest["columns"]
    given = Recorded(["q", "p"], WIDTH, ACTIONS, 50)
    assert import_data(Minari(tasks=["p", "q"]), [first, second], tmp_path / "given", given, quiet=True).suite == (
        given.describe()
    )

    make(tmp_path, "a/x-v1")
    for words, options, message in (
        (["a/x-v0", "a/x-v1"], {}, "two of the data sets make the task 'a/x'. Name them with --tasks"),
        (["a/x-v0"], {"tasks": ["p", "q"]}, "--tasks names 2 tasks; expected one for each of 1"),
    ):
        with pytest.raises(InputError, match=message):
            import_data(Minari(**options), words, tmp_path / "no", quiet=True)

    def wider(values: dict[str, Any]) -> None:
        values["observations"] = np.repeat(values["observations"], 2, 1)

    make(tmp_path, "a/wide-v0", change=wider, observation_space=box(2 * WIDTH))
    with pytest.raises(InputError, match=r"numbers, .*wide-v0 of \(6, 2\).*suite Union"):
        import_data(Minari(), ["a/x-v0", "a/wide-v0"], tmp_path / "no", quiet=True)


def test_unknown_ids_list_the_known(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name in ("b-v0", "a/x-v0", "a/deep/y-v1"):
        make(tmp_path, name)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert list(local_ids(tmp_path)) == ["a/deep/y-v1", "a/x-v0", "b-v0"]
    options = ["--root", str(tmp_path), "--out", str(tmp_path / "in")]
    assert main(["import", "minari", "a/z-v0", *options]) == 2
    message = capsys.readouterr().err
    assert "there are: a/deep/y-v1, a/x-v0, b-v0" in message and "minari download a/z-v0" in message
    assert main(["import", "minari", "a/x-v0", *options, "--quiet", "true"]) == 0
    assert "a/x" in capsys.readouterr().out


def test_what_is_not_flat_is_refused(tmp_path: Path) -> None:
    for place, (said, message) in enumerate(
        {
            json.dumps({"type": "Dict", "subspaces": {}}): "the observation space is Dict; expected Box",
            json.dumps({"type": "Discrete", "n": 3}): "the observation space is Discrete; expected Box",
            json.dumps({"type": "Box", "dtype": "uint8", "shape": [8, 8, 3]}): "is Box of the shape [8, 8, 3]",
            json.dumps({"type": 3}): "type is 3",
            "[": "observation_space is no JSON",
            box(WIDTH + 1): "its observations have 3 numbers; the metadata.json says 4",
        }.items()
    ):
        assert message in refused(make(tmp_path / str(place), observation_space=said))

    def images(values: dict[str, Any]) -> None:
        values["observations"] = np.zeros((len(values["rewards"]) + 1, 4, 4, 3), np.uint8)

    assert "Images and other arrays are not read" in refused(make(tmp_path / "x", change=images, observation_space=...))

    def parts(values: dict[str, Any]) -> None:
        values["observations/a"] = values.pop("observations")

    assert "expected arrays ['observations']" in refused(make(tmp_path / "y", change=parts, observation_space=...))


@pytest.mark.parametrize(
    "said, message",
    [
        ({"total_episodes": 0}, "total_episodes is 0"),
        ({"total_episodes": 4}, "there is no /episode_3"),
        ({"total_episodes": 2**62}, "there is no /episode_3"),
        ({"data_format": "arrow"}, "of the format 'arrow'; expected hdf5"),
        ({"action_space": box(ACTIONS, 1, 1)}, "from 1 to 1 in dimension 0"),
        ({"action_space": box(ACTIONS, float("nan"))}, "low of the action space is no list of 2 numbers"),
        ({"action_space": box(ACTIONS, ["x", 1])}, "low of the action space is no list"),
        ({"action_space": box(10**6, [0])}, "low of the action space is no list"),
        ({"action_space": box(ACTIONS + 1)}, "its actions have 2 numbers; the metadata.json says 3"),
        ({"env_spec": "{}"}, "env_spec is malformed: it lacks ['id']"),
        ({"env_spec": "["}, "env_spec is no JSON"),
        ({"env_spec": 3}, "env_spec is 3"),
        ({"author": "me"}, "author is 'me'"),
        ({"mtorl": {}}, "mtorl is malformed"),
        ({"mtorl": {"schema": 1}}, "mtorl is malformed: it lacks"),
    ],
)
def test_malformed_metadata_are_one_error(tmp_path: Path, said: dict[str, Any], message: str) -> None:
    assert message in refused(make(tmp_path, **said))


def test_files_that_are_none(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    (folder / "data/metadata.json").write_text("[" * 100_000)
    assert "is no JSON" in refused(folder)
    (folder / "data/metadata.json").write_text('{"a": ' + "9" * 10_000 + "}")
    assert "is no JSON" in refused(folder)
    folder = make(tmp_path / "b")
    (folder / "data/main_data.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert "cannot be read as HDF5" in refused(folder) or "cannot be read" in refused(folder)
    (folder / "data/main_data.hdf5").unlink()
    assert "main_data.hdf5" in refused(folder)
    (folder / "data/main_data.hdf5").symlink_to(make(tmp_path / "c") / "data/main_data.hdf5")
    assert "is a link out of its folder" in refused(folder)
    with pytest.raises(InputError, match=r"Minari before 0\.5"):
        read_set(tmp_path)


@pytest.mark.parametrize(
    "key, change, message",
    [
        (
            "rewards",
            lambda it: np.where(np.arange(len(it)) == 5, np.nan, it),
            "episode 2: rewards hold NaN or infinity at step 5",
        ),
        ("observations", lambda it: it[:-1], "episode 0: observations have the shape (4, 3); expected 5 rows"),
        ("rewards", lambda it: it[:-1], "episode 0: observations have the shape (5, 3); expected 4 rows"),
        ("actions", lambda it: it[:, 0], "actions have the shape (4,); expected 4 rows of some numbers"),
        ("rewards", lambda it: np.stack([it, it], 1), "rewards have the shape (4, 2); expected 4 rows of one number"),
        ("terminations", lambda it: it + 2, "expected flags"),
        ("rewards", lambda it: [b"text"] * len(it), "holds object, no plain numbers"),
        ("rewards", lambda it: 3.0, "observations have the shape (5, 3); expected 1 rows"),
    ],
)
def test_damaged_episodes_are_named(tmp_path: Path, key: str, change: Any, message: str) -> None:
    def damaged(values: dict[str, Any]) -> None:
        values[key] = change(values[key])

    assert message in refused(make(tmp_path, change=damaged))


def test_long_and_short_episodes(tmp_path: Path) -> None:
    store = load(make(tmp_path, lengths=(10_000, 1)))
    assert [len(it) for it in store] == [10_000, 1] and store.manifest["horizon"] == 10_000
