import dataclasses
import json
import mmap
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import episode, write

from mtorl import InputError
from mtorl.datasets.card import Card
from mtorl.datasets.opening import open_stores
from mtorl.datasets.spec import describe_stores
from mtorl.datasets.store import EpisodeStore, sha256
from mtorl.datasets.writer import StoreWriter


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data set in .*manifest\.json.*mtorl collect"):
        EpisodeStore(tmp_path / "nowhere")


def test_damaged_columns_are_refused(small: EpisodeStore, tmp_path: Path) -> None:
    def damaged(name: str) -> Path:
        return Path(shutil.copytree(small.path, tmp_path / name))

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


def test_damaged_manifests_are_refused(small: EpisodeStore) -> None:
    manifest = json.loads((small.path / "manifest.json").read_text())
    for text, message in (
        ("[]", "expected an object with a schema number, found 'list'"),
        ('{"schema": "1"}', "expected an object with a schema number, found '1'"),
        ('{"schema": 1}', "lacks .*'task_names'"),
        ("{", "cannot be"),
        (json.dumps(manifest | {"schema": 99}), "schema 99; this version of mtorl reads up to 1"),
    ):
        (small.path / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=message):
            EpisodeStore(small.path)


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


def _rewritten(store: EpisodeStore, **columns: np.ndarray) -> Path:
    """The store with other columns, described by its manifest as if they had been recorded so."""
    path = store.path / "manifest.json"
    manifest = json.loads(path.read_text())
    for name, values in columns.items():
        file = store.path / f"{name}.npy"
        np.save(file, values)
        manifest["columns"][name] = {"shape": list(values.shape), "bytes": file.stat().st_size, "sha256": sha256(file)}
    path.write_text(json.dumps(manifest))
    return store.path


def _changed(values: np.ndarray, place: Any, value: Any) -> np.ndarray:
    values = np.array(values)
    values[place] = value
    return values


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("episodes", "task", 77, r"episodes\.npy gives episode 1 the task 77; expected 0 to 1"),
        ("episodes", "task", -1, "gives episode 1 the task -1"),
        ("episodes", "task", 0, r"says 2 for tasks\[0\]\.episodes; the episodes and task names say 3"),
        ("episodes", "length", 0, "gives episode 1 the length 0"),
        ("episodes", "length", 2**62, "gives episode 1 the length"),
        ("episodes", "length", 2, "index counts 8 steps, the columns hold 9 actions"),
        ("episodes", "goal", -2, "gives episode 1 the goal -2"),
        ("episodes", "noise", np.nan, "gives episode 1 the noise nan"),
        ("episodes", "random", 2, "gives episode 1 the random 2"),
    ],
)
def test_a_wrong_index_is_refused_at_opening(
    small: EpisodeStore, name: str, field: str, value: float, message: str
) -> None:
    index = np.array(small.index)
    index[field][1] = value
    with pytest.raises(InputError, match=message):
        EpisodeStore(_rewritten(small, **{name: index}))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("rewards", lambda values: values[:, None], r"rewards\.npy has shape \(9, 1\); expected \(9,\)"),
        ("success", lambda values: values[:-1], r"success\.npy has shape \(8,\); expected \(9,\)"),
        ("rewards", lambda values: values.astype(complex), r"rewards\.npy holds complex128; expected float32"),
        ("episodes", lambda values: values["task"], r"episodes\.npy holds int32"),
        ("episodes", lambda values: values[:, None], r"episodes\.npy has shape \(3, 1\); expected one axis"),
        ("returns_to_go", lambda values: _changed(values, 0, np.nan), r"returns_to_go\.npy holds NaN"),
        ("returns_to_go", lambda values: _changed(values, 8, np.inf), r"returns_to_go\.npy holds NaN or infinity"),
    ],
)
def test_columns_that_do_not_fit_are_refused_at_opening(
    small: EpisodeStore, name: str, change: Callable, message: str
) -> None:
    column = small.index if name == "episodes" else getattr(small, name)
    with pytest.raises(InputError, match=message):
        EpisodeStore(_rewritten(small, **{name: change(column)}))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("rewards", np.float64), ("observations", np.float64), ("success", np.int64), ("truncated", np.float64)],
)
def test_columns_of_another_dtype_are_converted_and_that_is_said(small: EpisodeStore, name: str, kind: type) -> None:
    before = np.array(getattr(small, name))
    path = _rewritten(small, **{name: before.astype(kind)})
    with pytest.warns(UserWarning, match=rf"{name}\.npy holds {np.dtype(kind)}, expected {before.dtype}; it is conv"):
        store = EpisodeStore(path)
    assert getattr(store, name).dtype == before.dtype
    np.testing.assert_array_equal(getattr(store, name), before)
    store.verify()


@pytest.mark.filterwarnings("ignore:data set")
def test_columns_that_cannot_be_converted_exactly_are_refused(small: EpisodeStore) -> None:
    for name, value, message in (
        ("success", 0.3, r"success\.npy hold 0.3; expected flags"),
        ("rewards", 1e39, r"rewards\.npy hold 1e\+39, infinity in single precision"),
    ):
        before = np.array(getattr(small, name))
        with pytest.raises(InputError, match=message):
            EpisodeStore(_rewritten(small, **{name: _changed(before.astype(np.float64), 3, value)}))
        _rewritten(small, **{name: before})


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("rewards", 6, np.nan, r"rewards of .* hold NaN.*\(rewards\.npy, episode 1 of b, step 1\)"),
        ("observations", (7, 2), np.inf, r"\(observations\.npy, episode 1 of b, step 1\)"),
        ("actions", (8, 1), -3, r"actions of .* reach 3 \(actions\.npy, episode 2 of a, step 0\)"),
        ("returns_to_go", 6, np.nan, r"returns_to_go\.npy says nan at step 1 of episode 1 of b; expected"),
        ("returns_to_go", 5, 0.5, r"returns_to_go\.npy says 0.5 at step 0 of episode 1 of b; expected"),
        ("rewards", 5, 50.0, r"returns_to_go\.npy says .* at step 0 of episode 1 of b; expected"),
        ("observations", (7, 2), 9.0, r"for tasks\[1\]\.observation_mean\[2\]; the episodes of b give"),
        ("success", slice(5, 8), False, r"says 1 for tasks\[1\]\.success_rate; the episodes of b give 0"),
        ("success", slice(6, 8), [True, False], r"for tasks\[1\]\.success_last_rate; the episodes of b give 0"),
    ],
)
def test_verification_names_the_value_that_differs(
    small: EpisodeStore, name: str, place: Any, value: Any, message: str
) -> None:
    changed = EpisodeStore(_rewritten(small, **{name: _changed(getattr(small, name), place, value)}))
    with pytest.raises(InputError, match=message):
        changed.verify()


def test_verification_finds_flags_that_are_none(small: EpisodeStore) -> None:
    changed = EpisodeStore(_rewritten(small, success=_changed(small.success.view(np.uint8), 6, 77).view(np.bool_)))
    with pytest.raises(InputError, match=r"success\.npy holds no flag at step 1 of episode 1 of b"):
        changed.verify()


@pytest.mark.parametrize("key", ["return_mean", "return_quantiles", "observation_mean", "observation_std"])
def test_verification_recomputes_the_statistics_of_every_task(small: EpisodeStore, key: str) -> None:
    path = small.path / "manifest.json"
    manifest = json.loads(path.read_text())
    entry = manifest["tasks"][1]
    if isinstance(entry[key], list):
        entry[key][-1] += 0.01
    else:
        entry[key] += 0.01
    path.write_text(json.dumps(manifest))
    with pytest.raises(
        InputError, match=rf"its manifest\.json says .* for tasks\[1\]\.{key}.*; the episodes of b give"
    ):
        EpisodeStore(small.path).verify()


def test_verification_finds_a_horizon_that_episodes_exceed(small: EpisodeStore) -> None:
    path = small.path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "horizon": 4}))
    store = EpisodeStore(small.path)
    with pytest.raises(InputError, match=r"episode 0 of a has 5 steps, its manifest\.json states a horizon of 4"):
        store.verify()
    assert describe_stores([store]).horizon == 5, "agents are built for the longest episode that there is"


def test_moments_of_rounded_observations_pass(tmp_path: Path) -> None:
    """Large offsets and small spreads: single precision rounds them, the moments were counted before or after."""
    draw = np.random.default_rng(0)
    episodes = [
        dataclasses.replace(episode("a", 9, seed), observations=1000 + 1e-3 * draw.normal(size=(10, 3)))
        for seed in range(20)
    ]
    write(tmp_path / "x", [*episodes, episode("b")]).verify()


@pytest.mark.parametrize("name", ["manifest.json", "rewards.npy"])
def test_a_pipe_is_never_opened(small: EpisodeStore, name: str) -> None:
    (small.path / name).unlink()
    os.mkfifo(small.path / name)
    with pytest.raises(InputError, match="is a pipe or device; expected a regular file"):
        EpisodeStore(small.path)


def test_opening_reads_little(small: EpisodeStore) -> None:
    """Columns stay memory maps; only verification reads them."""
    store = EpisodeStore(small.path)
    for name in ("observations", "actions", "rewards", "returns_to_go", "success", "terminated", "truncated"):
        column = getattr(store, name)
        while column.base is not None and not isinstance(column, np.memmap):
            column = column.base
        assert isinstance(column, np.memmap | mmap.mmap), name


def padded(path: Path, **head: object) -> EpisodeStore:
    """Two tasks, of which the second uses two of three observations and one of two actions."""
    own = episode("b", 4)
    one = dataclasses.replace(own, observations=own.observations * (1, 1, 0), actions=own.actions * (1, 0))
    if "b" in head.get("returns_only", ()):  # type: ignore[operator]
        one = dataclasses.replace(one, success=np.zeros(4, dtype=bool))
    suite = {"class_path": "some.Suite", "init_args": {}}
    options = {"own_dimensions": [(3, 2), (2, 1)], **head}
    StoreWriter(path, suite, ("a", "b"), (3, 2), 9, {}, {}, **options).write([episode(), one])  # type: ignore[arg-type]
    return EpisodeStore(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"own_dimensions": [[1, 2], [2, 1]]},
            "observations.npy is not zero in dimension 1 at step 0 of episode 0 of a",
        ),
        ({"own_dimensions": [[3, 1], [2, 1]]}, "actions.npy is not zero in dimension 1 at step 0 of episode 0 of a"),
        ({"own_dimensions": [[3, 2], [4, 1]]}, r"gives b the dimensions \[4, 1\]; expected at most \[3, 2\]"),
        ({"returns_only": ["a"]}, "success.npy marks step 2 of episode 0 of a, a task .* without success"),
        ({"returns_only": ["c"]}, r"counts \['c'\] among tasks without success, and has no such"),
    ],
)
def test_what_is_said_of_single_tasks_is_verified(tmp_path: Path, change: dict, message: str) -> None:
    store = padded(tmp_path / "x", returns_only=["b"])
    store.verify()
    path = tmp_path / "x" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=message):
        EpisodeStore(tmp_path / "x").verify()


def test_a_store_without_a_card_has_one_from_its_source(small: EpisodeStore, store: EpisodeStore) -> None:
    assert "card" not in small.manifest
    assert small.card == Card("scripted experts of Suite, recipe test")
    assert store.card.origin.startswith("recorded by mtorl ")
    assert store.card.origin.endswith(": scripted experts of PointReach, recipe mixed")
    other = {"suite": small.suite, "source": {"importer": "D4RL", "files": ["x.hdf5"]}}
    assert Card.of_manifest(other).origin == "Suite, importer D4RL, files ['x.hdf5']"
    assert Card.of_manifest({"suite": small.suite, "source": {}}).origin == "Suite, nothing else is known"
