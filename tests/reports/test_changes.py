"""What changed between runs: settings, differences and their intervals, on the page and in its JSON."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import options_of

from mtorl.datasets.store import EpisodeStore
from mtorl.envs.protocol import Protocol
from mtorl.intervals import difference_interval, wilson_interval
from mtorl.measures import RETURN, SUCCESS, Measure
from mtorl.reports.changes import Change, Changes, changes_of
from mtorl.reports.entries import entries_of
from mtorl.reports.run_report import report
from mtorl.runs.run import Run
from mtorl.runs.training import train


@pytest.fixture(scope="module")
def runs(store: EpisodeStore, tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("changes")
    made = [
        train(**options_of(store, folder / "plain")),
        train(**options_of(store, folder / "other"), balancer="PCGrad", optimizer__lr=0.01),
        train(**options_of(store, folder / "again")),
    ]
    for run in made:
        run.evaluate(Protocol(goals=4), workers=0, quiet=True)
    return made


def test_newcombes_example() -> None:
    """56 of 70 less 48 of 80, table II of Newcombe (1998), method 10."""
    one, two = (56 / 70, *wilson_interval(56, 70)), (48 / 80, *wilson_interval(48, 80))
    assert difference_interval(one, two) == pytest.approx((0.0524, 0.3339), abs=5e-4)
    low, high = difference_interval(two, one)
    assert (-high, -low) == pytest.approx(difference_interval(one, two))


def test_the_interval_covers_a_true_difference() -> None:
    draw, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        one, two = draw.binomial(20, 0.9), draw.binomial(20, 0.6)
        low, high = difference_interval((one / 20, *wilson_interval(one, 20)), (two / 20, *wilson_interval(two, 20)))
        covered += low <= 0.3 <= high
    assert 0.93 <= covered / 2000 <= 0.98


def test_numbers_without_interval_have_a_difference_without() -> None:
    found = Measure(RETURN, 5.0, None, None).less(Measure(RETURN, 3.0, 1.0, 4.0))
    assert (found.value, found.low, found.high) == (2.0, None, None)
    assert not Change("a", found, found, found).sure


def test_only_what_differs_is_named(runs: list[Run]) -> None:
    plain, other, again = runs
    entries = entries_of([plain, other], [run.reports()[0] for run in (plain, other)])
    found = changes_of(entries)
    assert dict(found.settings) == {"balancer": ["Equal", "PCGrad"], "optimizer.lr": ["0.001", "0.01"]}
    for change, one, two in zip(found.tasks, *(entry.rows for entry in entries), strict=True):
        assert change.difference.value == two.rate - one.rate and change.difference.scale is SUCCESS
        assert change.sure == (change.difference.low > 0 or change.difference.high < 0)
    assert found.means[0].difference.value == pytest.approx(np.mean([it.difference.value for it in found.tasks]))
    same = changes_of(entries_of([plain, again], [run.reports()[0] for run in (plain, again)]))
    assert same.settings == [] and not any(it.difference.value for it in (*same.tasks, *same.means))


def test_of_three_runs_the_settings_alone(runs: list[Run]) -> None:
    found = changes_of(entries_of(runs, [run.reports()[0] for run in runs]))
    assert found.settings[0][1] == ["Equal", "PCGrad", "Equal"] and found.tasks == found.means == []


def test_the_page_and_its_numbers(runs: list[Run], tmp_path: Path) -> None:
    page = report(runs[:2], tmp_path / "two.html")
    text, content = page.read_text(), json.loads(page.with_suffix(".json").read_text())
    assert "What changed" in text and "other less plain, in percentage points" in text
    assert content["changes"]["settings"]["balancer"] == ["Equal", "PCGrad"]
    assert [it["of"] for it in content["changes"]["tasks"]] == list(runs[0].spec.task_names)
    for it in content["changes"]["tasks"]:
        shown = f"{100 * it['value']:+.0f}" if it["value"] else "0"
        assert f"<td>{it['of']}</td><td>{shown}</td>" in text
    alone = report(runs[0], tmp_path / "one.html")
    assert "What changed" not in alone.read_text() and "changes" not in json.loads(
        alone.with_suffix(".json").read_text()
    )
    assert "All settings, data and versions are the same" in report(runs[::2], tmp_path / "same.html").read_text()


def test_of_many_tasks_those_that_changed_most() -> None:
    def change(number: int) -> Change:
        difference = Measure(SUCCESS, number / 100, number / 100 - 0.1, number / 100 + 0.1)
        return Change(f"{number}", difference, difference, difference)

    largest = Changes([], [change(number) for number in range(-20, 31)], []).largest
    assert [int(it.name) for it in largest] == [*range(30, 20, -1)]
    both = Changes([], [change(number) for number in (-30, -1, 0, 2, 25, *range(-12, -4))], []).largest
    assert [int(it.name) for it in both] == [25, *range(-5, -13, -1), -30]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_click_sorts(runs: list[Run], tmp_path: Path) -> None:
    page = report(runs[:2], tmp_path / "two.html")
    script = """<script>
const head = document.querySelectorAll("table.changes th")[0];
const names = () => [...head.closest("table").tBodies[0].rows].map(row => row.cells[0].textContent).join();
head.click(); const first = names(); head.click(); document.title = first + ";" + names();
</script></body>"""
    changed = tmp_path / "clicked.html"
    changed.write_text(page.read_text().replace("</body>", script))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user"]
    result = subprocess.run([*command, "--dump-dom", changed.as_uri()], capture_output=True, text=True, timeout=120)
    title = result.stdout.partition("<title>")[2].partition("</title>")[0]
    names, mean = sorted(runs[0].spec.task_names), "mean success of 3 tasks"
    assert title == ";".join(",".join([*order, mean]) for order in (names, reversed(names)))
