"""Pages and tables of more tasks than a person reads."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mtorl.datasets.grouping import Grouping
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import EvalReport, Played
from mtorl.reports.charts.base import MANY_TASKS, heat_map, subplots, task_lines
from mtorl.reports.charts.grouping import draw_grouping
from mtorl.reports.evaluation_table import show_report
from mtorl.reports.many import HARDEST, hardest
from mtorl.reports.run_report import report
from mtorl.runs.training import train

MANY = MANY_TASKS + 20


def test_the_hardest_of_many_come_first_and_few_stay_in_their_order() -> None:
    values = {f"task-{place}": float(place * 7 % MANY) for place in range(MANY)}
    assert hardest(values) == sorted(values, key=values.__getitem__)[:HARDEST]
    few = {"b": 1.0, "a": 0.0}
    assert hardest(few) == ["b", "a"]


def test_heat_maps_of_many_tasks_show_means_of_blocks_of_pairs_of_different_tasks() -> None:
    values = np.random.default_rng(0).random((MANY, MANY))
    values[2, 1] = np.nan  # a pair that no batch held
    figure, axes = subplots(1, 1, (4, 4))
    heat_map(figure, axes[0][0], values, "cosine")
    shown = axes[0][0].images[0].get_array()
    assert shown.shape == (40, 40) and axes[0][0].get_title() == "cosine\nmeans of blocks of 2 tasks"
    np.testing.assert_allclose(shown[0, 1], values[:2, 2:4].mean())
    np.testing.assert_allclose(shown[0, 0], (values[0, 1] + values[1, 0]) / 2)
    np.testing.assert_allclose(shown[1, 0], values[[2, 3, 3], [0, 0, 1]].mean())


def test_groups_of_many_tasks_have_frames_around_their_blocks() -> None:
    names, labels = tuple(f"task-{place}" for place in range(MANY)), (0,) * 50 + (1,) * (MANY - 50)
    rows = tuple(tuple(float(place) for place in range(MANY)) for _ in range(MANY))
    axis = draw_grouping(Grouping(names, labels, rows, 0.5, "Someone(x=1); words")).axes[0]
    assert [(it.get_xy(), it.get_width()) for it in axis.patches] == [((-0.5, -0.5), 25), ((24.5, 24.5), 15)]
    assert [text.get_text() for text in axis.get_yticklabels()][:2] == ["task-0", "task-4"]


def test_curves_of_many_tasks_are_a_median_and_bands() -> None:
    _, axes = subplots(1, 2, (4, 4))
    names = [str(place) for place in range(MANY)]
    task_lines(axes[0][0], names, [[(0, float(place)), (5, None)] for place in range(MANY)])
    (middle,) = axes[0][0].lines
    assert middle.get_xdata().tolist() == [0] and middle.get_ydata().tolist() == [(MANY - 1) / 2]
    task_lines(axes[0][1], names[:3], [[(0, 1.0), (1, 2.0)]] * 3)
    assert len(axes[0][1].lines) == 3


def test_the_table_in_the_terminal_shows_the_hardest_and_the_mean_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(f"task-{place}" for place in range(MANY))
    wins = {name: place >= 12 for place, name in enumerate(names)}
    episodes = tuple(Played(name, 0, wins[name], wins[name], 1.0, 5) for name in names)
    show_report(EvalReport("policy", names, episodes, Protocol(goals=1), {"init_args": {}}, {}))
    shown = capsys.readouterr().out
    assert re.findall(r"task-\d+", shown) == list(names[:HARDEST])
    assert f"mean of {MANY} tasks" in shown and "success at 10, 25, 50, 75 and 90 % of all: 0%, 100%" in shown


def test_a_page_of_many_tasks_folds_away_all_but_the_hardest(tmp_path: Path) -> None:
    store = collect(PointReach(MANY, horizon=3), tmp_path / "data", "random", episodes=1, workers=0, quiet=True)
    schedule = {"steps": 2, "log_every": 1, "monitor_every": 1, "evaluate_every": 0}
    options = {"agent__hidden": [4], "windows": 1, "schedule": schedule, "workers": 0, "threads": 1, "quiet": True}
    run = train(data=str(store.path), out=str(tmp_path / "run"), **options)  # type: ignore[arg-type]
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)
    path = report(run)
    page, content = path.read_text(), json.loads(path.with_suffix(".json").read_text())
    assert len(content["runs"][0]["tasks"]) == MANY
    first, _ = page.split(f"<details><summary>all {MANY} tasks</summary>")[:2]
    assert len(re.findall(r"<td>(?:towards|away)-\d+</td>", first)) == HARDEST
    assert page.count("<td>towards-0</td>") == 3, "among the hardest, in the table of all, and in that of the data"
