import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from conftest import episode, write

from mtorl import InputError
from mtorl.datasets.card import Card, joined_card
from mtorl.datasets.operations import filter, merge, split
from mtorl.datasets.parents import parents_of
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.files import sha256


def contents(episodes: Iterable[Episode]) -> list[tuple]:
    """Everything that episodes hold, bit for bit."""
    return [
        tuple(
            value.tobytes() if isinstance(value := getattr(one, field.name), np.ndarray) else value
            for field in dataclasses.fields(Episode)
        )
        for one in episodes
    ]


@pytest.mark.parametrize("by_task", [True, False])
def test_the_parts_of_a_split_have_nothing_in_common_and_are_everything(
    store: EpisodeStore, tmp_path: Path, by_task: bool
) -> None:
    parts = split(store.path, [tmp_path / "a", tmp_path / "b"], 0.75, seed=3, by_task=by_task)
    first, second = (contents(part) for part in parts)
    assert sorted([*first, *second]) == sorted(contents(store)) and not {*first} & {*second}
    assert [one for one in contents(store) if one in first] == first, "in the same order"
    assert (len(first), len(second)) == (27, 9)
    if by_task:
        assert np.bincount(parts[0].index["task"]).tolist() == [9, 9, 9]
    for part, place in zip(parts, ("first", "second"), strict=True):
        part.verify()
        (parent,) = parents_of(part)
        assert parent.verify(part) and parent.sha256 == sha256(store.path / "manifest.json")
        assert parent.options == {"share": 0.75, "seed": 3, "by_task": by_task, "part": place}
        assert part.card == store.card and part.task_names == store.task_names
        assert part.manifest["source"] == {k: v for k, v in store.manifest["source"].items() if k != "episodes"}
        assert part.manifest["versions"] == store.manifest["versions"]


def test_what_is_drawn_of_a_task_depends_on_nothing_else(store: EpisodeStore, tmp_path: Path) -> None:
    name = store.task_names[1]
    alone = filter(store.path, tmp_path / "alone", tasks=[name])
    few, _ = split(alone.path, [tmp_path / "few", tmp_path / "rest"], 0.5)
    half, _ = split(store.path, [tmp_path / "half", tmp_path / "other"], 0.5)
    again, _ = split(store.path, [tmp_path / "again", tmp_path / "once_more"], 0.5)
    another, _ = split(store.path, [tmp_path / "another", tmp_path / "and_its_rest"], 0.5, seed=1)
    assert contents(few) == contents(one for one in half if one.task == name)
    assert contents(again) == contents(half) != contents(another)


def test_a_task_that_cannot_be_split_is_named(small: EpisodeStore, tmp_path: Path) -> None:
    out = [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(InputError, match=r"two would have no episodes of b. Ask for less, or .* --drop_empty"):
        split(small.path, out)
    assert not any(path.exists() for path in out), "neither appears"
    first, second = split(small.path, out, drop_empty=True)
    assert (first.task_names, second.task_names) == (("a", "b"), ("a",))
    assert second.suite["init_args"] == {"tasks": ["a"]}
    with pytest.raises(InputError, match="expected two folders"):
        split(small.path, [tmp_path / "x", tmp_path / "x"])
    with pytest.raises(InputError, match="exists and is not empty"):
        split(small.path, out, drop_empty=True)


def test_filters_keep_the_better_half_the_successful_and_the_named(store: EpisodeStore, tmp_path: Path) -> None:
    better = filter(store.path, tmp_path / "better", min_return_quantile=0.5)
    better.verify()
    for task, name in enumerate(store.task_names):
        returns = np.sort(store.returns[store.index["task"] == task])
        np.testing.assert_array_equal(np.sort(better.returns[better.index["task"] == task]), returns[6:], name)
    best = filter(store.path, tmp_path / "best", min_return_quantile=1, tasks=[store.task_names[2]])
    assert len(best) == 1 and best.returns[0] == store.returns[store.index["task"] == 2].max()
    assert best.manifest["horizon"] == store.manifest["horizon"]
    (parent,) = parents_of(best)
    assert parent.options == {"min_return_quantile": 1, "tasks": [store.task_names[2]]}


def test_a_filter_keeps_successful_episodes(tmp_path: Path) -> None:
    data = write(tmp_path / "x", [episode("a", 5), episode("a", 2), episode("b", 4), episode("b", 1)])
    kept = filter(data.path, tmp_path / "kept", success_only=True)  # they succeed in their third step
    assert contents(kept) == contents([data.episode(0), data.episode(2)])
    short = write(tmp_path / "short", [episode("a", 5), episode("b", 1)])
    with pytest.raises(InputError, match="no episodes of b"):
        filter(short.path, tmp_path / "none", success_only=True)
    assert filter(short.path, tmp_path / "some", success_only=True, drop_empty=True).task_names == ("a",)
    with pytest.raises(InputError, match=r"no episodes of b. Ask for less"):
        filter(short.path, tmp_path / "none", success_only=True, tasks=["b"], drop_empty=True)
    for options, message in (
        ({}, "nothing is to be filtered"),
        ({"tasks": ["c"]}, "unknown tasks \\['c'\\]"),
        ({"tasks": []}, "unknown tasks"),
        ({"min_return_quantile": 1.5}, "min_return_quantile is 1.5"),
    ):
        with pytest.raises(InputError, match=message):
            filter(short.path, tmp_path / "none", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def of(path: Path, episodes: list[Episode], **changes: object) -> EpisodeStore:
    """Episodes of the tasks a and b, with something else in the manifest's head."""
    options = {
        "suite": {"class_path": "some.Suite", "init_args": {"tasks": ["a", "b"]}},
        "task_names": ("a", "b"),
        "dimensions": (3, 2),
        "horizon": 9,
        "versions": {"simulator": "1"},
        "source": {"recipe": "test", "seed": 1},
    }
    StoreWriter(path, **{**options, **changes}).write(episodes)  # type: ignore[arg-type]
    return EpisodeStore(path)


def test_a_merge_holds_all_episodes_as_they_were(tmp_path: Path) -> None:
    tagged = dataclasses.replace(episode("c", 4, 5), noise=0.25, random=0.5)
    one = of(tmp_path / "one", [episode("b", 5, 1), episode("a", 3, 2)], card=Card("x", "MIT", ("n",)))
    two = of(
        tmp_path / "two",
        [tagged, episode("a", 2, 7)],
        task_names=("c", "a"),
        horizon=20,
        source={"recipe": "test", "seed": 2, "split": "train"},
        card=Card("y", "MIT", ("n", "m")),
    )
    merged = merge([one.path, two.path], tmp_path / "both")
    merged.verify()
    assert contents(merged) == [*contents(one), *contents(two)]
    assert merged.task_names == ("a", "b", "c") == tuple(merged.suite["init_args"]["tasks"])
    assert merged.manifest["horizon"] == 20 and merged.manifest["source"] == {"recipe": "test"}
    assert merged.card == Card("x; y", "MIT", ("n", "m"))
    assert [parent.path for parent in parents_of(merged)] == [str(one.path), str(two.path)]


def test_a_split_that_is_merged_again_is_what_it_was(store: EpisodeStore, tmp_path: Path) -> None:
    parts = split(store.path, [tmp_path / "a", tmp_path / "b"], 0.3)
    merged = merge([part.path for part in parts], tmp_path / "ab")
    assert sorted(contents(merged)) == sorted(contents(store))
    for counted, before in zip(merged.manifest["tasks"], store.manifest["tasks"], strict=True):
        np.testing.assert_allclose(counted["return_quantiles"], before["return_quantiles"])
        np.testing.assert_allclose(counted["observation_std"], before["observation_std"], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"versions": {"simulator": "2"}}, "cannot be joined: versions"),
        ({"suite": {"class_path": "other.Suite", "init_args": {}}}, "cannot be joined: suite"),
        ({"returns_only": ["a"]}, "cannot be joined: only the second knows success of a"),
        ({"own_dimensions": [(2, 2), (3, 2)]}, r"dimensions of a are \(2, 2\) and \(3, 2\)"),
    ],
)
def test_what_does_not_belong_together_is_not_merged(tmp_path: Path, changes: dict, message: str) -> None:
    blind = dataclasses.replace(episode("a"), success=np.zeros(5, dtype=bool))
    flat = dataclasses.replace(blind, observations=blind.observations * (1, 1, 0))
    one, two = of(tmp_path / "one", [flat], **changes), of(tmp_path / "two", [episode("a")])
    with pytest.raises(InputError, match=message):
        merge([one.path, two.path], tmp_path / "both")
    assert not (tmp_path / "both").exists()
    with pytest.raises(InputError, match="at least two folders, got 1"):
        merge([one.path], tmp_path / "both")


def test_what_is_said_of_single_tasks_goes_with_them(tmp_path: Path) -> None:
    blind = dataclasses.replace(episode("a"), success=np.zeros(5, dtype=bool))
    flat = dataclasses.replace(blind, observations=blind.observations * (1, 1, 0))
    one = of(tmp_path / "one", [flat, episode("b")], returns_only=["a"], own_dimensions=[(2, 2), (3, 2)])
    two = of(tmp_path / "two", [episode("c")], task_names=("c",))
    merged = merge([one.path, two.path], tmp_path / "both")
    merged.verify()
    assert merged.returns_only == ("a",) and merged.own_dimensions == [[2, 2], [3, 2], [3, 2]]
    rest = filter(merged.path, tmp_path / "rest", tasks=["c", "b"])
    assert rest.returns_only == () and rest.own_dimensions == [[3, 2], [3, 2]] and rest.task_names == ("b", "c")
    with pytest.raises(InputError, match="success is not known of a"):
        filter(merged.path, tmp_path / "none", success_only=True)


def test_held_out_data_stay_held_out(tmp_path: Path) -> None:
    one = of(tmp_path / "one", [episode("a", 3, 1), episode("a")], source={"split": "train"})
    two = of(tmp_path / "two", [episode("a", 3, 1), episode("a")], source={"split": "heldout"})
    made = [
        filter(two.path, tmp_path / "f", tasks=["a"]),
        *split(two.path, [tmp_path / "s", tmp_path / "t"]),
        merge([one.path, two.path], tmp_path / "m"),
    ]
    assert {store.manifest["source"]["split"] for store in made} == {"heldout"}


def test_a_parent_that_changed_is_noticed(tmp_path: Path) -> None:
    data = of(tmp_path / "x", [episode("a"), episode("b")])
    made = filter(data.path, tmp_path / "y", tasks=["a"])
    (parent,) = parents_of(made)
    manifest = data.path / "manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(InputError, match="the parent was changed since"):
        parent.verify(made)
    manifest.unlink()
    assert not parent.verify(made)
    content = json.loads((made.path / "manifest.json").read_text())
    content["parents"] = [{"by": "others"}, content["parents"][0] | {"sha256": 3}]
    (made.path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="sha256"):
        parents_of(EpisodeStore(made.path))


def test_cards_of_several() -> None:
    assert joined_card([Card("x"), Card("x")]) == Card("x")
    assert joined_card([Card("x", "MIT"), Card("y")]) == Card("x; y", "MIT; unknown")
