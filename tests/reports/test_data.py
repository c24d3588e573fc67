import io
from dataclasses import replace

import numpy as np
import pytest

from mtorl.datasets.parents import Parent
from mtorl.datasets.spec import describe_stores
from mtorl.datasets.statistics import QUANTILES
from mtorl.datasets.store import EpisodeStore
from mtorl.reports.data import BINS, bars, commands_for, facts_of, heights


def test_bars_show_where_the_episodes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert bars(np.array([0.0, 12.0])) == "█" + " " * 10 + "█"
    assert bars(np.array([0.0] * 8 + [12.0])) == "█" + " " * 10 + "▁", "one is never nothing"
    assert bars(np.array([3.0] * 5)) == " " * 6 + "█" + " " * 5
    assert bars(np.array([])) == ""
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert bars(np.array([0.0, 12.0])) == "@" + " " * 10 + "@"


def test_heights_are_those_of_the_episodes() -> None:
    draw = np.random.default_rng(0)
    for returns in (draw.normal(size=5000), draw.exponential(size=5000) ** 0.5, np.repeat([0.0, 1.0], 50)):
        found = np.array(heights(np.quantile(returns, QUANTILES).tolist()))
        counts, _ = np.histogram(returns, BINS)
        assert np.abs(found / found.sum() - counts / counts.sum()).max() < 0.05
    assert heights([2.0] * 21)[BINS // 2] == 1 and sum(heights([2.0] * 21)) == 1


def test_data_are_made_again_by_what_made_them(store: EpisodeStore) -> None:
    spec = describe_stores([store])
    (data,) = spec.data
    assert facts_of(data)[0] == ("origin", store.card.origin) and facts_of({"path": "x", "sha256": "x"}) == []

    def command(**changes: object) -> str:
        (made,) = commands_for([replace(spec, data=({**data, "path": "new one", **changes},))])
        return made

    assert command().startswith("mtorl collect --suite PointReach") and command().endswith("--out 'new one'")
    imported = command(source={"importer": "D4RL", "files": ["a.hdf5", "b.hdf5"]})
    assert imported == "mtorl import d4rl a.hdf5 b.hdf5 --out 'new one'"
    options = {"share": 0.75, "seed": 0, "by_task": True, "part": "second"}
    split = command(parents=[Parent("/p", "x", "split", options).plain()])
    assert split == "mtorl split /p --share 0.75 --seed 0 --by_task true --out ANOTHER_FOLDER 'new one'"
    merged = command(parents=[Parent(path, "x", "merge").plain() for path in ("/p", "/q")])
    assert merged == "mtorl merge /p /q --out 'new one'"
    kept = command(parents=[Parent("/p", "x", "filter", {"success_only": True, "tasks": ["a", "b"]}).plain()])
    assert kept == "mtorl filter /p --success_only true --tasks a b --out 'new one'"
    first_versions = replace(spec, data=({"path": "x", "sha256": "x"},))
    assert commands_for([first_versions]) == []
