import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mtorl import InputError
from mtorl.datasets.statistics import QUANTILES, returns_to_go
from mtorl.datasets.store import DataSpec, Episode, EpisodeStore, StoreWriter, describe_stores, open_stores, sha256


def episode(task: str = "a", length: int = 5, seed: int = 0) -> Episode:
    draw = np.random.default_rng(seed)
    flags = np.zeros(length, dtype=bool)
    return Episode(
        task,
        draw.normal(size=(length + 1, 3)).astype(np.float32),
        draw.uniform(-1, 1, (length, 2)).astype(np.float32),
        draw.random(length).astype(np.float32),
        flags | (np.arange(length) == 2),
        flags,
        np.arange(length) == length - 1,
        goal=seed,
        seed=seed,
    )


def write(path: Path, episodes: list[Episode], names: tuple[str, ...] = ("a", "b")) -> EpisodeStore:
    suite = {"class_path": "some.Suite", "init_args": {"tasks": list(names)}}
    StoreWriter(path, suite, names, (3, 2), 9, {"simulator": "1"}, {"recipe": "test"}).write(episodes)
    return EpisodeStore(path)


@pytest.fixture
def small(tmp_path: Path) -> EpisodeStore:
    return write(tmp_path / "small", [episode("a", 5, 0), episode("b", 3, 1), episode("a", 1, 2)])


def test_episodes_come_back_as_they_were_written(small: EpisodeStore) -> None:
    originals = [episode("a", 5, 0), episode("b", 3, 1), episode("a", 1, 2)]
    assert len(small) == 3
    for original, stored in zip(originals, small, strict=True):
        for field in dataclasses.fields(Episode):
            np.testing.assert_array_equal(getattr(stored, field.name), getattr(original, field.name))
    for number, original in enumerate(originals):
        steps = slice(small.starts[number], small.starts[number + 1])
        np.testing.assert_array_equal(small.returns_to_go[steps], returns_to_go(original.rewards))


def test_manifest_statistics(small: EpisodeStore) -> None:
    ours = [episode("a", 5, 0), episode("a", 1, 2)]
    task = small.manifest["tasks"][0]
    states = np.concatenate([one.observations[:-1] for one in ours])
    np.testing.assert_allclose(task["observation_mean"], states.mean(0), rtol=1e-5)
    np.testing.assert_allclose(task["observation_std"], states.std(0), rtol=1e-5)
    returns = [one.rewards.sum() for one in ours]
    np.testing.assert_allclose(task["return_quantiles"], np.quantile(returns, QUANTILES), rtol=1e-5)
    assert (task["episodes"], task["steps"], task["success_rate"], task["success_last_rate"]) == (2, 6, 0.5, 0.0)


def test_the_same_episodes_give_the_same_bytes(tmp_path: Path) -> None:
    stores = [write(tmp_path / name, [episode()]) for name in ("one", "two")]
    for path in sorted(stores[0].path.iterdir()):
        assert path.read_bytes() == (stores[1].path / path.name).read_bytes(), path.name
    assert not [path for path in stores[0].path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((5, 3), np.float32)}, "5 actions and 5 observations; expected 6"),
        ({"rewards": np.zeros(4, np.float32)}, "5 actions but 4 rewards"),
        ({"actions": np.full((5, 2), 1.5, np.float32)}, r"reach 1.5; expected \[-1, 1\]"),
        ({"rewards": np.full(5, np.nan, np.float32)}, "rewards of a hold NaN"),
        ({"observations": np.zeros((6, 4), np.float32)}, r"dimensions \(4, 2\); expected \(3, 2\)"),
        ({"task": "c"}, "names the task 'c'"),
    ],
)
def test_malformed_episodes_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write(tmp_path / "x", [dataclasses.replace(episode(), **changes)])
    assert not (tmp_path / "x" / "manifest.json").exists()


def test_damaged_stores_are_refused(small: EpisodeStore, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(small.path, tmp_path / name))

    with pytest.raises(InputError, match=r"no data set in .*manifest\.json.*mtorl collect"):
        EpisodeStore(tmp_path / "nowhere")

    path = damaged("truncated")
    content = (path / "actions.npy").read_bytes()
    (path / "actions.npy").write_bytes(content[:-4])
    with pytest.raises(InputError, match=r"actions\.npy has \d+ bytes, expected \d+"):
        EpisodeStore(path)

    path = damaged("changed")
    (path / "actions.npy").write_bytes(content[:-4] + b"\0\0\0?")
    with pytest.raises(InputError, match=r"actions\.npy has sha256"):
        EpisodeStore(path).verify()

    path = damaged("missing")
    (path / "rewards.npy").unlink()
    with pytest.raises(InputError, match=r"rewards\.npy is missing"):
        EpisodeStore(path)

    path = damaged("header")
    content = (path / "rewards.npy").read_bytes()
    (path / "rewards.npy").write_bytes(b"\x93NUMPX" + content[6:])
    with pytest.raises(InputError, match=r"rewards\.npy cannot be read as a column"):
        EpisodeStore(path)

    path = damaged("manifest")
    for text, message in (
        ("[]", "lacks .*'schema', 'suite'"),
        ('{"schema": 1}', "lacks .*'task_names'"),
        ("{", "cannot be"),
    ):
        (path / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=message):
            EpisodeStore(path)

    path = damaged("newer")
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    with pytest.raises(InputError, match="schema 99; this version of mtorl reads up to 1"):
        EpisodeStore(path)


def test_an_intact_store_passes_verification(small: EpisodeStore) -> None:
    small.verify()


def test_joined_stores(tmp_path: Path) -> None:
    first = write(tmp_path / "first", [episode("a", 5, 0), episode("b", 4, 1)])
    second = write(tmp_path / "second", [episode("b", 3, 2)], ("b",))
    spec = describe_stores(open_stores([first.path, second.path]))
    assert (spec.task_names, spec.steps, spec.episodes) == (("a", "b"), (5, 7), (1, 2))
    returns = [episode("b", 4, 1).rewards.sum(), episode("b", 3, 2).rewards.sum()]
    np.testing.assert_allclose(spec.return_quantiles[1], np.quantile(returns, QUANTILES), rtol=1e-5)
    states = np.concatenate([episode("b", 4, 1).observations[:-1], episode("b", 3, 2).observations[:-1]])
    np.testing.assert_allclose(spec.observation_std[1], states.std(0), rtol=1e-5)
    assert describe_stores(open_stores([second.path, first.path])).task_names == ("b", "a")
    third = write(tmp_path / "third", [episode("c", 2, 3)], ("c",))
    joined = describe_stores(open_stores([first.path, third.path]))
    assert joined.task_names == ("a", "b", "c") == tuple(joined.suite["init_args"]["tasks"])
    with pytest.raises(InputError, match="given twice"):
        open_stores([first.path, tmp_path / "second" / ".." / "first"])


def test_stores_of_other_suites_or_dimensions_are_refused(small: EpisodeStore, tmp_path: Path) -> None:
    wide = dataclasses.replace(episode(), observations=np.zeros((6, 7), np.float32))
    flat = dataclasses.replace(episode(), actions=np.zeros((5, 1), np.float32))
    for number, (one, dimensions, suite, settings, version, message) in enumerate(
        (
            (episode(), (3, 2), "other.Suite", {}, "1", "suite some.Suite and other.Suite differ"),
            (episode(), (3, 2), "some.Suite", {"goal_visible": False}, "1", "suite settings .*goal_visible.* differ"),
            (episode(), (3, 2), "some.Suite", {}, "2", "versions .*'2'.* differ"),
            (wide, (7, 2), "some.Suite", {}, "1", "observation dimension 3 and 7 differ"),
            (flat, (3, 1), "some.Suite", {}, "1", "action dimension 2 and 1 differ"),
        )
    ):
        path = tmp_path / str(number)
        description = {"class_path": suite, "init_args": settings}
        StoreWriter(path, description, ("a", "b"), dimensions, 9, {"simulator": version}, {}).write([one])
        with pytest.raises(InputError, match=f"cannot be joined: {message}"):
            open_stores([small.path, path])
    with pytest.raises(InputError, match="no data set was given"):
        open_stores([])


def test_dimensions_that_disagree_with_the_columns_are_refused(small: EpisodeStore) -> None:
    manifest = json.loads((small.path / "manifest.json").read_text())
    (small.path / "manifest.json").write_text(json.dumps(manifest | {"observation_dim": 7}))
    with pytest.raises(InputError, match=r"gives dimensions 7 and 2, the columns have \(3,\) and \(2,\)"):
        EpisodeStore(small.path)


def test_values_are_checked_whatever_the_hashes_say(small: EpisodeStore) -> None:
    for name, value, message in (
        ("rewards", np.nan, "rewards of .* hold NaN"),
        ("actions", 2.0, "actions of .* reach 2"),
    ):
        path = small.path / f"{name}.npy"
        before = path.read_bytes()
        values = np.load(path)
        values.flat[-1] = value
        np.save(path, values)
        manifest = json.loads((small.path / "manifest.json").read_text())
        manifest["columns"][name]["sha256"] = sha256(path)
        (small.path / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=message):
            EpisodeStore(small.path).verify()
        path.write_bytes(before)
        manifest["columns"][name]["sha256"] = sha256(path)
        (small.path / "manifest.json").write_text(json.dumps(manifest))


def test_tasks_without_episodes_and_unknown_tasks_are_refused(tmp_path: Path) -> None:
    store = write(tmp_path / "x", [episode("a")])
    with pytest.raises(InputError, match="no episodes of b"):
        describe_stores([store])
    assert describe_stores([store], ["a"]).task_names == ("a",)
    with pytest.raises(InputError, match=r"unknown tasks \['z'\]"):
        describe_stores([store], ["z"])


def test_data_spec_survives_json(spec: DataSpec) -> None:
    assert DataSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_normaliser(spec: DataSpec, store: EpisodeStore) -> None:
    mean, std = spec.normaliser(per_task=False, floor=0.01)
    states = np.concatenate([one.observations[:-1] for one in store])
    np.testing.assert_allclose(mean[0], states.mean(0), atol=1e-5)
    np.testing.assert_allclose(std[0], states.std(0), atol=1e-5)
    assert (mean == mean[0]).all() and (std == std[0]).all()
    mean, _ = spec.normaliser(per_task=True, floor=0.01)
    mine = np.concatenate([one.observations[:-1] for one in store if one.task == "away-0"])
    np.testing.assert_allclose(mean[2], mine.mean(0), atol=1e-5)
    assert (spec.normaliser(False, 100.0)[1] == 100).all()
