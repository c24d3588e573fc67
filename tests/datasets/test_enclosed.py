"""What a file says of its data set may be from a stranger."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import episode

from mtorl import InputError
from mtorl.datasets.enclosed import KEY, Part, contents_of_parts, head_of, read_part, write_part
from mtorl.datasets.exporters import Npz
from mtorl.datasets.importers import Npz as NpzImporter
from mtorl.datasets.store import EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.envs import PointReach
from mtorl.envs.importing import import_data


@pytest.fixture
def exported(store: EpisodeStore, tmp_path: Path) -> Path:
    return Npz(str(tmp_path / "out")).export(store) / "away-0.npz"


def changed(path: Path, **fields: Any) -> Path:
    """The same file with another manifest."""
    arrays = dict(np.load(path))
    head = json.loads(bytes(arrays[KEY])) | fields
    text = json.dumps({name: value for name, value in head.items() if value is not ...})
    return with_text(path, text)


def with_text(path: Path, text: str) -> Path:
    arrays = dict(np.load(path)) | {KEY: np.frombuffer(text.encode(), np.uint8)}
    other = path.with_name("other.npz")
    np.savez(other, **arrays)
    return other


def refused(path: Path, out: Path, **options: Any) -> str:
    """What is said; nothing is left."""
    with pytest.raises(InputError) as error:
        import_data(NpzImporter(), [path], out, quiet=True, **options)
    assert not out.exists() and not [it for it in out.parent.iterdir() if it.name.startswith(".")]
    return str(error.value)


def test_what_is_written_is_read(small: EpisodeStore) -> None:
    part = Part("b", 1, 1, 3)
    head, found = read_part(write_part(small.manifest, part).encode(), "x")
    assert found == part and head == head_of(small.manifest)


def test_a_suite_of_a_stranger_is_not_imported(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hostile.py").write_text(f"open({str(tmp_path / 'was_here')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "in"
    inner = {"class_path": "hostile.Suite", "init_args": {}}
    for suite in (
        inner,
        {"class_path": "mtorl.envs.Union", "init_args": {"suites": [{"suites": [inner]}]}},
        {"class_path": "mtorl.envs.Gymnasium", "init_args": {"environments": ["hostile:Env-v0"]}},
        {"class_path": "mtorl.envs.Gymnasium", "init_args": {"environments": {"a": "hostile:Env-v0"}}},
        {"class_path": "mtorlx.Suite", "init_args": {}},
    ):
        message = refused(changed(exported, suite=suite), out)
        assert "would run its code" in message and "--suite" in message
    for path in ("mtorl.commands.main.os", "mtorl.nowhere.Suite", "mtorl."):
        assert "suite" in refused(changed(exported, suite={"class_path": path, "init_args": {}}), out)
    assert not (tmp_path / "was_here").exists() and "hostile" not in sys.modules

    named = import_data(NpzImporter(), [changed(exported, suite=inner)], out, PointReach(["away-0"]), quiet=True)
    assert named.suite["class_path"].startswith("mtorl.envs.point_reach")


def test_a_malformed_manifest_is_one_error(exported: Path, tmp_path: Path) -> None:
    good = json.loads(bytes(np.load(exported)[KEY]))
    for name in ("schema", "suite", "task_names", "observation_dim", "horizon", "versions", "source", "part"):
        for value in (..., None, 7.5, "x", [], [1], {"a": [{}]}):
            if name != "source" or not isinstance(value, dict):
                assert "manifest" in refused(changed(exported, **{name: value}), tmp_path / "in"), (name, value)
    for part, message in (
        ({"task": "nowhere"}, "names the task 'nowhere'"),
        ({"first": -1}, "part.first is -1"),
        ({"episodes": True}, "part.episodes is True"),
    ):
        assert message in refused(changed(exported, part=good["part"] | part), tmp_path / "in")
    for field, message in (
        ({"observation_dim": 10**6}, r"states the dimensions [1000000, 2]; the arrays have [4, 2]"),
        ({"returns_only": ["x"]}, "know no success"),
        ({"own_dimensions": [[4, 2], [4, 2], [5, 2]]}, "gives a task the dimensions [5, 2]"),
        ({"own_dimensions": [[4, 2]]}, "own_dimensions counts 1"),
        ({"versions": {"a": 1}}, "versions.a is 1"),
        ({"schema": 99}, "Upgrade mtorl"),
        ({"horizon": 3}, "more than the horizon of 3"),
        ({"card": {"origin": 3}}, "card"),
    ):
        assert message in refused(changed(exported, **field), tmp_path / "in")
    for text in ("", "{", "[" * 10_000, '{"schema": ' + "9" * 5000 + "}", "\udcff", '{"schema": NaN}'):
        assert "manifest" in refused(with_text(exported, text.encode("utf-8", "replace").decode()), tmp_path / "in")


def test_a_manifest_cannot_make_a_large_thing_of_a_small_file(tmp_path: Path) -> None:
    names = [f"{number}" for number in range(30_000)]
    head = {
        "schema": 1,
        "suite": {"class_path": "mtorl.envs.Recorded", "init_args": {}},
        "task_names": names,
        "observation_dim": 1000,
        "action_dim": 1,
        "horizon": 1,
        "versions": {},
        "source": {},
    }
    with pytest.raises(InputError, match=r"lists 30000 tasks of 1000 numbers; expected at most"):
        contents_of_parts([("x", head, Part("0", 0, 1, 1))], (1000, 1))


def test_parts_belong_together(store: EpisodeStore, exported: Path, tmp_path: Path) -> None:
    other = exported.with_name("towards-0.npz")
    with pytest.raises(InputError, match=r"two files hold the task 'away-0'"):
        import_data(NpzImporter(), [exported, exported], tmp_path / "in", quiet=True)
    with pytest.raises(InputError, match=r"are parts of different data sets.*mtorl merge"):
        import_data(NpzImporter(), [other, changed(exported, source={})], tmp_path / "in", quiet=True)
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, **{key: np.load(exported)[key] for key in ("observations", "actions", "rewards", "terminals")})
    with pytest.raises(InputError, match=r"was exported by mtorl, .*foreign\.npz was not"):
        import_data(NpzImporter(), [exported, foreign], tmp_path / "in", quiet=True)


def test_damaged_columns_are_named(exported: Path, tmp_path: Path) -> None:
    good = dict(np.load(exported))
    rewards = good["rewards"].copy()
    first = np.flatnonzero(good["infos/episode"] == good["infos/episode"][0])
    rewards[first[-1] + 3] = np.nan
    for arrays, message in (
        ({"rewards": rewards}, "damaged.npz, episode 25 of its data set: rewards hold NaN or infinity at step 2"),
        ({"rewards": good["rewards"][:-1]}, "rewards has the shape"),
        ({"observations": good["observations"][:, None]}, "observations has the shape"),
        ({"next_observations": good["observations"][:, :3]}, "next_observations have 3 numbers"),
        ({"actions": good["actions"].astype(object)}, "actions holds object"),
        ({"actions": good["actions"] * 2}, "expected [-1, 1]"),
        ({"success": good["success"] + 1.5}, "expected flags"),
        ({"infos/goal": good["infos/goal"] + 0.5}, "goal is"),
        ({"infos/episode": good["infos/episode"] * np.inf}, "infos/episode hold NaN or infinity"),
        ({"infos/noise": good["infos/noise"] * np.nan}, "noise is nan"),
        ({"infos/seed": None}, "lacks the arrays ['infos/seed']"),
    ):
        kept = {name: values for name, values in (good | arrays).items() if values is not None}
        path = exported.with_name("damaged.npz")
        np.savez(path, **kept)
        assert message in refused(path, tmp_path / "in")


def test_an_empty_head_of_earlier_versions_has_a_card(tmp_path: Path) -> None:
    """Stores without a card say in it what their source said."""
    suite = PointReach(["away-0"])
    points = {"observations": np.zeros((3, 4), np.float32)}
    from dataclasses import replace

    one = replace(episode("away-0", 2), **points)
    StoreWriter(tmp_path / "old", suite.describe(), ["away-0"], (4, 2), 50, {}, {"recipe": "expert"}).write([one])
    Npz(str(tmp_path / "old.npz")).export(EpisodeStore(tmp_path / "old"))
    found = import_data(NpzImporter(), [tmp_path / "old.npz"], tmp_path / "in", quiet=True)
    assert found.manifest["card"]["origin"] == "exported by mtorl: recipe expert"
