"""Films show what evaluations found, and say where they do not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mtorl
from mtorl import InputError
from mtorl.commands.main import main
from mtorl.envs import PointReach
from mtorl.envs.evaluator import evaluate
from mtorl.envs.filming import Shots, Take, film_episodes
from mtorl.envs.policies import ExpertPolicy
from mtorl.envs.protocol import Protocol
from mtorl.envs.results import EvalReport, Played
from mtorl.envs.workers import WorkerPool
from mtorl.reports import films as films_module
from mtorl.reports import frames
from mtorl.reports.films import embedded_film, film
from mtorl.reports.frames import BAR, Panel, frames_of, grid_of, write_film
from mtorl.runs.run import Run

SMALL = {"workers": 0, "quiet": True, "width": 64, "height": 48, "format": "gif"}


@pytest.fixture
def run(baseline: Callable[[dict], Run], train_options: dict, tmp_path: Path) -> Run:
    return Run(shutil.copytree(baseline(train_options).folder, tmp_path / "film" / "run"))


def size_of(path: Path) -> tuple[int, int, int]:
    with Image.open(path) as picture:
        return (*picture.size, picture.n_frames)


def test_an_episode_of_every_task_and_all_of_them(run: Run) -> None:
    made = film(run, **SMALL)
    assert [it.path.name.split("-goal50-")[0] for it in made[:-1]] == list(run.spec.task_names)
    assert made[-1].path.name == "all_tasks.gif" and len(made[-1].episodes) == 3
    assert {it.path.parent for it in made} == {run.folder / "films"}
    width, height, count = size_of(made[0].path)
    assert (width, height) == (64, 48 + BAR) and count > 50, "a horizon of 50 steps has a picture for each"
    assert size_of(made[-1].path)[:2] == (3 * 64, 48 + BAR)
    assert all(it.as_evaluated == (None,) for it in made[:-1])
    listed = json.loads((run.folder / "films" / "films.json").read_text())
    assert [it["path"] for it in listed] == [it.path.name for it in made]


def test_failures_are_those_of_the_evaluation(run: Run) -> None:
    report = run.evaluate(Protocol("heldout", 12), workers=0, quiet=True)
    made = film(run, failures=2, **SMALL)
    failed = [(it.task, it.goal) for it in report.episodes if not it.success]
    expected = [it for name in report.task_names for it in [row for row in failed if row[0] == name][:2]]
    alone = [it for it in made if it.path.stem != "all_tasks"]
    assert [(it.episodes[0].task, it.episodes[0].goal) for it in alone] == expected and expected
    rows = {(it.task, it.goal): it for it in report.episodes}
    for it in made:
        assert all(it.as_evaluated), "to the last bit"
        assert all(rows[episode.task, episode.goal] == episode for episode in it.episodes)
    assert all("failure" in it.path.name and it.success_steps == (None,) for it in alone)


def test_failures_are_found_out_where_nothing_was_evaluated(run: Run) -> None:
    made = film(run, tasks=["away-0"], failures=1, **SMALL)
    (report,) = run.reports()
    first = next(it for it in report.episodes if it.task == "away-0" and not it.success)
    assert made[0].episodes == (first,) and made[0].as_evaluated == (True,) and report.protocol.goals == 50


def test_what_ends_otherwise_is_said(run: Run) -> None:
    report = run.evaluate(Protocol("heldout", 2), workers=0, quiet=True)
    assert report.path
    content = json.loads(report.path.read_text())
    content["episodes"][0]["reward"] += 1
    report.path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="towards-0, goal 50 ended otherwise than in"):
        made = film(run, tasks=["towards-0"], goals=[50, 51], **SMALL)
    assert [it.as_evaluated for it in made] == [(False,), (True,)]


def test_evaluations_of_other_settings_are_not_compared(run: Run) -> None:
    run.evaluate(Protocol("heldout", 2, context="anchored"), workers=0, quiet=True)
    assert film(run, tasks=["towards-0"], **SMALL)[0].as_evaluated == (None,)
    assert film(run, tasks=["towards-0"], context="anchored", **SMALL)[0].as_evaluated == (True,)
    assert film(run, tasks=["towards-0"], context="anchored", goals=60, **SMALL)[0].as_evaluated == (None,)


def test_the_expert_is_beside_the_policy_with_the_same_goal(run: Run) -> None:
    (alone,) = film(run, tasks=["towards-0"], goals=55, **SMALL)
    (both,) = film(run, tasks=["towards-0"], goals=55, expert=True, out=run.folder / "other", **SMALL)
    assert size_of(both.path)[0] == 2 * size_of(alone.path)[0] and both.episodes == alone.episodes


def test_what_cannot_be_filmed_is_refused(run: Run) -> None:
    with pytest.raises(InputError, match=r"unknown tasks \['reach'\]; the run plays"):
        film(run, tasks=["reach"], **SMALL)
    with pytest.raises(InputError, match=r"heldout has no goals \[3\] here; expected some of 50 to 99"):
        film(run, goals=3, **SMALL)
    with pytest.raises(InputError, match="failures is 0; expected at least 1"):
        film(run, failures=0, **SMALL)
    with pytest.raises(InputError, match="height is 3; expected"):
        film(run, **{**SMALL, "height": 3})


def test_without_ffmpeg_a_gif_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (films_module, frames):
        monkeypatch.setattr(module, "has_ffmpeg", lambda: False)
    (made,) = film(run, tasks=["towards-0"], **{**SMALL, "format": "auto"})
    assert made.path.suffix == ".gif"
    with pytest.raises(InputError, match=r"pip install 'mtorl\[video\]'"):
        film(run, tasks=["towards-0"], **{**SMALL, "format": "mp4"})


def test_with_ffmpeg_an_mp4_is_written(run: Run) -> None:
    reader = pytest.importorskip("imageio_ffmpeg")
    (made,) = film(run, tasks=["towards-0"], **{**SMALL, "format": "auto"})
    assert made.path.suffix == ".mp4"
    found = reader.read_frames(str(made.path))
    meta = next(found)
    assert meta["size"] == (64, 48 + BAR) and meta["fps"] == 20
    assert len([*found]) >= 51 + 20, "the end is held for a second"


def test_the_expert_is_filmed_as_it_is_evaluated(suite: PointReach) -> None:
    protocol = Protocol("heldout", 12)
    expert = ExpertPolicy(suite)
    with WorkerPool(0) as pool:
        ((takes,),) = film_episodes([expert], suite, protocol, {"away-0": [61, 52]}, pool, Shots((24, 32), every=7))
        report = evaluate(expert, suite, protocol, pool, quiet=True)
    assert {it.played for it in takes} <= {*report.episodes}
    assert [it.played.goal for it in takes] == [61, 52]
    for take in takes:
        assert take.pictures.shape == (len(take.steps), 24, 32, 3)
        assert take.success_step in take.steps and take.steps[-1] == take.played.length == 50
        assert {*range(0, 50, 7)} <= {*take.steps} and len(take.steps) <= 8 + 2


def take(success_step: int | None, length: int = 20) -> Take:
    steps = tuple(sorted({*range(0, length + 1, 5), *([success_step] if success_step else [])}))
    played = Played("push-v3", 50, success_step is not None, False, 1.0, length)
    return Take(played, steps, np.full((len(steps), 48, 64, 3), 200, np.uint8), success_step)


def edge(frame: np.ndarray) -> tuple[int, ...]:
    return tuple(frame[BAR + 1, 1].tolist())


def test_borders_say_how_an_episode_ends() -> None:
    solved, failed, unjudged = Panel("policy", take(8)), Panel("policy", take(None)), Panel("policy", take(None), False)
    assert [edge(solved.frame(step)) == frames.GREEN for step in (0, 5, 7, 8, 10, 20)] == [False] * 3 + [True] * 3
    assert [edge(failed.frame(step)) == frames.RED for step in (0, 10, 19, 20)] == [False] * 3 + [True]
    assert edge(unjudged.frame(20)) == (200, 200, 200)
    assert (solved.frame(8)[:BAR] != solved.frame(7)[:BAR]).any(), "the words say it, too"


def test_episodes_side_by_side_share_their_time() -> None:
    made = frames_of([Panel("policy", take(8)), Panel("expert", take(3))])
    assert len(made) == len({0, 3, 5, 8, 10, 15, 20}) and made[0].shape == (48 + BAR, 128, 3)
    assert edge(made[1]) != frames.GREEN and edge(made[1][:, 64:]) == frames.GREEN


def test_a_grid_shrinks_to_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    three = [Panel("policy", take(None))] * 3
    assert grid_of(three, "mp4")[0].shape[1] == grid_of(three, "gif")[0].shape[1] == 3 * 64
    assert (len(grid_of(three, "mp4")), len(grid_of(three, "gif"))) == (5, 3)
    monkeypatch.setitem(frames.WIDEST, "mp4", 200)
    assert grid_of([Panel("policy", take(None))] * 10, "mp4")[0].shape == (2 * (30 + BAR), 5 * 40, 3)


def test_odd_sizes_are_written(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    write_film([np.zeros((33, 45, 3), np.uint8)] * 3, tmp_path / "odd.mp4", fps=5)
    assert (tmp_path / "odd.mp4").stat().st_size > 500


def test_the_page_holds_a_film(run: Run) -> None:
    report = run.evaluate(Protocol("heldout", 2), workers=0, quiet=True)
    page = mtorl.report(run, films=True)
    text = page.read_text()
    assert "<h2>Films</h2>" in text and ("data:video/mp4;base64" in text or "data:image/gif;base64" in text)
    assert f"{run.folder.name}: 3 tasks" in text
    assert "<h2>Films</h2>" not in mtorl.report(run).read_text()
    assert embedded_film(run, report, workers=0).episodes == 3


def test_a_film_that_is_too_large_is_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(films_module, "LARGEST", 100)
    report: EvalReport = run.evaluate(Protocol("heldout", 2), workers=0, quiet=True)
    found = embedded_film(run, report, workers=0)
    assert found.address is None and found.megabytes > 0.001
    assert "too large for a page" in mtorl.report(run, films=True).read_text()


def test_the_command(run: Run, capsys: pytest.CaptureFixture) -> None:
    small = ["--width", "64", "--height", "48", "--format", "gif", "--workers", "0", "--quiet"]
    assert main(["film", "--goals", "50", "51", "--tasks", "away-0", "towards-0", *small, str(run.folder)]) == 0
    out = capsys.readouterr().out
    assert "away-0-goal51-" in out and "all_tasks.gif" in out and "no evaluation" in out
    report = run.evaluate(Protocol("heldout", 50), workers=0, quiet=True)
    assert report.path is not None
    replace(report, episodes=tuple(it._replace(success=True) for it in report.episodes)).save(report.path)
    assert main(["film", str(run.folder), "--failures", "1", *small]) == 2
    assert "Leave --failures out" in capsys.readouterr().err


def test_a_tracker_gets_films(run: Run, tmp_path: Path) -> None:
    config = run.folder / "config.yaml"
    text = f"tracker:\n  class_path: recording.Writing\n  init_args:\n    path: {tmp_path / 'told'}\n"
    config.write_text(config.read_text() + text)
    film(run.folder, **SMALL)
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert ["film", 30, "films/all_tasks", "all_tasks.gif", True] in told and told[-1] == ["close"]
