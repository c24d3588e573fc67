"""Films of a run: chosen episodes, played exactly as its evaluations were, and written as MP4 or GIF."""

import base64
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mtorl import InputError, checks
from mtorl.envs.base import ContextMode
from mtorl.envs.filming import Shots, Take, film_episodes
from mtorl.envs.policies import ExpertPolicy, Policy
from mtorl.envs.protocol import Protocol, ProtocolName, TaskVisibility
from mtorl.envs.results import EvalReport, Played
from mtorl.envs.workers import WorkerPool
from mtorl.files import write_json
from mtorl.progress import Progress
from mtorl.reports.frames import Frame, Panel, frames_of, grid_of, has_ffmpeg, width_in_grid, write_film
from mtorl.reports.scenes import Scene, choose_episodes, open_scene
from mtorl.runs.run import Run
from mtorl.runs.tracking import follower

FormatName = Literal["auto", "mp4", "gif"]
GRID = "all_tasks"
"""Name of the film of all tasks."""
SMALL = (120, 160)
"""Height and width of a picture in a page."""
LARGEST = 4_000_000
"""Bytes of a film that is put into a page."""
TRACKED = 10
"""Films that a tracker is given at most, that of all tasks first."""


@dataclass(frozen=True)
class Film:
    """One film.

    Attributes:
        path: The file.
        episodes: What is seen of the policy, as an evaluation would say it.
        success_steps: Of each episode the step that first succeeded; None: none did.
        as_evaluated: Of each episode, whether it ended to the last bit as the kept evaluation says; None: there is
            none of it.
    """

    path: Path
    episodes: tuple[Played, ...]
    success_steps: tuple[int | None, ...]
    as_evaluated: tuple[bool | None, ...]


@dataclass(frozen=True)
class Files:
    """Where films are written.

    Attributes:
        folder: Their folder.
        kind: mp4 or gif.
        fps: Pictures in a second.
    """

    folder: Path
    kind: str
    fps: int

    def write(self, name: str, frames: Sequence[Frame], grid: bool = False) -> Path:
        """Writes a film; returns its file. A grid has half of the pictures as a GIF."""
        path = self.folder / f"{name}.{self.kind}"
        write_film(frames, path, max(self.fps // 2, 1) if grid and self.kind == "gif" else self.fps)
        return path


def film(
    run: str | Path | Run,
    tasks: Sequence[str] | None = None,
    goals: Sequence[int] | int | None = None,
    failures: int | None = None,
    expert: bool = False,
    checkpoint: str = "last",
    protocol: ProtocolName = "heldout",
    goal_visible: bool | None = None,
    act_with: str | None = None,
    task_identity: TaskVisibility = "shown",
    demonstrations: str | None = None,
    context: ContextMode = "exact",
    out: str | Path | None = None,
    width: int = 320,
    height: int = 240,
    every: int | None = None,
    fps: int = 20,
    format: FormatName = "auto",
    workers: int = 2,
    quiet: bool = False,
) -> list[Film]:
    """Films a run's policy: an episode of every task, those that are named, or the first failures; and all in one film.

    Episodes are played exactly as evaluations play them. From its first success on an episode has a green border; one
    that ends without has a red one.

    Args:
        run: Folder of a trained run.
        tasks: Of these tasks only.
        goals: Episodes with these goals, by their numbers in reports of evaluations; the protocol's first by default.
        failures: The first that many failed episodes of each task, by the evaluation that the run keeps; if there is
            none, it is played first. Of tasks without success, those of the lowest returns.
        expert: Show the scripted expert beside the policy, with the same goal.
        checkpoint: Which checkpoint of the run: last, best (on training goals), or a step.
        protocol: Whose goals: heldout, official (training goals) or ml45-like (unseen tasks).
        goal_visible: Show the run the goal's position, or hide it; as in its data by default.
        act_with: Which policy of an agent that has several; by default what its configuration says.
        task_identity: Tell the policy which task it is in (shown), or not (hidden).
        demonstrations: A data set whose best episode of each task is shown to the policy.
        context: How agents that look at the last steps move on: exact or anchored, as in evaluations.
        out: Folder of the films; by default `films` in the run's own.
        width: Of a picture in pixels.
        height: Of a picture in pixels.
        every: Steps between pictures; by default so many that an episode of full length has 125.
        fps: Pictures in a second.
        format: mp4, gif, or auto: mp4 where ffmpeg is there (extra `video`).
        workers: Processes that play.
        quiet: Show no progress.

    Returns:
        The films, one for each episode, and last that of all tasks, if there are several.
    """
    checks.at_least(1, failures=failures, fps=fps)
    checks.one_of("format", format, FormatName)
    how = Protocol(protocol, task_identity=task_identity, demonstrations=demonstrations, context=context)
    goals = [goals] if isinstance(goals, int) else goals
    opened, shots = Run(run), Shots((height, width), every)
    known = how.plays(opened.suite(goal_visible)).goals(how.split)
    if unknown := [goal for goal in goals or () if goal not in known]:
        raise InputError(
            f"the protocol {protocol} has no goals {unknown} here; expected some of {known[0]} to {known[-1]}."
        )
    scene = open_scene(opened, how, checkpoint, goal_visible, act_with, goals)
    if failures and scene.report is None:
        opened.evaluate(how, checkpoint, goal_visible, workers=workers, quiet=quiet, act_with=act_with)
        scene = open_scene(opened, how, checkpoint, goal_visible, act_with, goals)
    wanted = choose_episodes(scene, tasks, goals, failures)
    if not any(wanted.values()):
        raise InputError(
            f"nothing to film: of the tasks {list(wanted)} no episode failed in {scene.report and scene.report.path}."
            " Leave --failures out, or name --goals."
        )
    kind = "mp4" if format == "auto" and has_ffmpeg() else "gif" if format == "auto" else format
    folder = Path(out) if out is not None else opened.home / "films"
    with WorkerPool(workers) as pool:
        films = _write(scene, wanted, expert, pool, shots, Files(folder, kind, fps), quiet)
    write_json(folder / "films.json", [asdict(it) | {"path": it.path.name} for it in films])
    _tell(scene, films)
    return films


def panels(
    scene: Scene, wanted: Mapping[str, Sequence[int]], policies: Mapping[str, Policy], pool: WorkerPool, shots: Shots
) -> Iterator[list[Panel]]:
    """Plays with pictures; yields of one task after the other, and of each episode, a panel for each policy."""
    chosen = {name: it for name, it in wanted.items() if it}
    played = scene.protocol.plays(scene.suite)
    found = film_episodes([*policies.values()], scene.suite, scene.protocol, chosen, pool, shots)
    for name, takes in zip(chosen, found, strict=True):
        judged = name not in played.returns_only
        for episode in zip(*takes, strict=True):
            yield [Panel(label, take, judged) for label, take in zip(policies, episode, strict=True)]


def _write(
    scene: Scene,
    wanted: Mapping[str, Sequence[int]],
    expert: bool,
    pool: WorkerPool,
    shots: Shots,
    files: Files,
    quiet: bool,
) -> list[Film]:
    """Writes a film of every episode, and that of all tasks."""
    policies: dict[str, Policy] = {"policy": scene.policy}
    if expert:
        policies["expert"] = ExpertPolicy(scene.protocol.plays(scene.suite))
    films: list[Film] = []
    grid: dict[str, Panel] = {}
    total = sum(map(len, wanted.values()))
    width = width_in_grid(sum(map(bool, wanted.values())), shots.size[1], files.kind)
    with Progress("filming", total, "episodes", quiet=quiet) as progress:
        for row in panels(scene, wanted, policies, pool, shots):
            take = row[0].take
            name = re.sub(r"[^\w.+-]|\.\.", "_", f"{take.played.task}-goal{take.played.goal}-{_ending(scene, take)}")
            path = files.write(name, frames_of(row))
            films.append(_film(scene, path, [take]))
            grid.setdefault(take.played.task, row[0].resized(width))
            progress.advance(1)
    if len(grid) > 1:
        path = files.write(GRID, grid_of([*grid.values()], files.kind), grid=True)
        seen = {(it.episodes[0].task, it.episodes[0].goal): it.as_evaluated[0] for it in films}
        takes = [panel.take for panel in grid.values()]
        films.append(
            Film(
                path,
                tuple(it.played for it in takes),
                tuple(it.success_step for it in takes),
                tuple(seen[it.played.task, it.played.goal] for it in takes),
            )
        )
    return films


def _film(scene: Scene, path: Path, takes: Sequence[Take]) -> Film:
    return Film(
        path,
        tuple(it.played for it in takes),
        tuple(it.success_step for it in takes),
        tuple(scene.agrees(it.played) for it in takes),
    )


def _ending(scene: Scene, take: Take) -> str:
    if take.played.task in scene.protocol.plays(scene.suite).returns_only:
        return "return"
    return "success" if take.played.success else "failure"


def _tell(scene: Scene, films: Sequence[Film]) -> None:
    """Gives films to the run's tracker, that of all tasks first."""
    tracking = follower(scene.run)
    if tracking is None:
        return
    with closing(tracking):
        for it in films[::-1][:TRACKED]:
            tracking.film(scene.step, f"films/{it.path.stem}", it.path)


@dataclass(frozen=True)
class EmbeddedFilm:
    """A film inside a page.

    Attributes:
        name: Of the run.
        address: The film as a data address; None: it is too large.
        moving: Whether it is a video; otherwise a GIF.
        failures: How many of its episodes failed.
        episodes: How many there are, one of each task.
        megabytes: Of the file.
    """

    name: str
    address: str | None
    moving: bool
    failures: int
    episodes: int
    megabytes: float


def embedded_film(run: Run, report: EvalReport, workers: int = 2) -> EmbeddedFilm:
    """A small film of all tasks for a page: of each task the first failure, or the first episode if none failed.

    Args:
        run: The run.
        report: The evaluation that the page shows.
        workers: Processes that play.
    """
    policy, source = run.policy(report.source.checkpoint or "last", report.source.act_with)
    suite = run.suite(not report.goal_hidden)
    scene = Scene(run, policy, suite, report.protocol, report, source.step or 0)
    failed = choose_episodes(scene, None, None, failures=1)
    first = choose_episodes(scene, None, None, failures=None)
    wanted = {name: failed[name] or first[name] for name in first}
    kind = "mp4" if has_ffmpeg() else "gif"
    with WorkerPool(workers) as pool:
        rows = [row[0] for row in panels(scene, wanted, {"policy": policy}, pool, Shots(SMALL))]
    for panel in rows:
        scene.agrees(panel.take.played)
    with tempfile.TemporaryDirectory(prefix="mtorl-") as folder:
        path = Files(Path(folder), kind, 20).write(GRID, grid_of(rows, kind), grid=True)
        content = path.read_bytes()
    told = "video/mp4" if kind == "mp4" else "image/gif"
    address = f"data:{told};base64,{base64.b64encode(content).decode()}" if len(content) <= LARGEST else None
    failures = sum(it.take.played.task not in report.returns_only and not it.take.played.success for it in rows)
    return EmbeddedFilm(run.folder.name, address, kind == "mp4", failures, len(rows), len(content) / 1e6)
