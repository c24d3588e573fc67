import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mtorl import InputError
from mtorl.datasets.spec import describe_stores, open_stores
from mtorl.datasets.store import EpisodeStore, sha256


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
        ("[]", "expected an object with a schema number, found 'list'"),
        ('{"schema": "1"}', "expected an object with a schema number, found '1'"),
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


def test_a_manifest_of_any_shape_gives_one_error(small: EpisodeStore, tmp_path: Path) -> None:
    good = json.loads((small.path / "manifest.json").read_text())
    shutil.copytree(small.path, tmp_path / "odd")
    for key in good:
        for value in (None, 7, "x", [], {}, [{}]):
            if value == good[key]:
                continue
            (tmp_path / "odd/manifest.json").write_text(json.dumps({**good, key: value}))
            try:
                describe_stores(open_stores([tmp_path / "odd"]))
            except InputError as error:
                assert str(error)


def test_an_intact_store_passes_verification(small: EpisodeStore) -> None:
    small.verify()


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
