"""Which episodes of a run are filmed, and how they were evaluated."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mtorl import InputError
from mtorl.envs.base import Suite
from mtorl.envs.policies import Policy
from mtorl.envs.protocol import Protocol, demonstrations_hash
from mtorl.envs.results import EvalReport, Played
from mtorl.runs.run import Run


@dataclass(frozen=True)
class Scene:
    """What is filmed, and how it is played.

    Attributes:
        run: The run.
        policy: Its policy.
        suite: What it plays.
        protocol: As its evaluation has it, if there is one.
        report: That evaluation.
        step: Training steps behind the policy.
    """

    run: Run
    policy: Policy
    suite: Suite
    protocol: Protocol
    report: EvalReport | None
    step: int

    def row(self, played: Played) -> Played | None:
        """What the kept evaluation says of an episode."""
        rows = self.report.episodes if self.report else ()
        return next((it for it in rows if (it.task, it.goal) == (played.task, played.goal)), None)

    def agrees(self, played: Played) -> bool | None:
        """Whether an episode ended to the last bit as the kept evaluation says; warns where it did not."""
        row = self.row(played)
        if row is None:
            return None
        if row != played:
            warnings.warn(
                f"{played.task}, goal {played.goal} ended otherwise than in {self.report and self.report.path}: "
                f"success {played.success}, return {played.reward:.3f} on film, {row.success}, {row.reward:.3f} there. "
                "Another processor or other versions change last bits; evaluate again on this machine.",
                stacklevel=3,
            )
        return row == played


def open_scene(
    run: Run,
    asked: Protocol,
    checkpoint: str = "last",
    goal_visible: bool | None = None,
    act_with: str | None = None,
    goals: Sequence[int] | None = None,
) -> Scene:
    """What is to be filmed, with the kept evaluation that was played like that: of the most goals, not stopped.

    Args:
        run: The run.
        asked: How to play; the number of goals is that of the evaluation.
        checkpoint: Which one.
        goal_visible: Show the goal's position or hide it; as in the data by default.
        act_with: Which policy of an agent that has several.
        goals: Goals that must be among those that are played.
    """
    act_with = run.unusual(act_with)
    policy, source = run.policy(checkpoint, act_with)
    suite = run.suite(goal_visible)
    every = len(asked.plays(suite).goals(asked.split))
    try:
        kept = run.reports(asked.name, checkpoint)
    except InputError:
        kept = []
    shown = demonstrations_hash(asked)
    alike = [
        it
        for it in kept
        if replace(it.protocol, goals=every, stop_at_success=False) == replace(asked, goals=every)
        and (it.source.act_with, it.source.demonstrations_sha256) == (act_with, shown)
        and it.goal_hidden == (not suite.goal_visible)
        and {*(goals or ())} <= {episode.goal for episode in it.episodes}
    ]
    report = min(alike, key=lambda it: (it.protocol.stop_at_success, -it.protocol.goals), default=None)
    if report is None:
        return Scene(run, policy, suite, replace(asked, goals=every), None, source.step or 0)
    own = replace(report.protocol, demonstrations=asked.demonstrations)
    return Scene(run, policy, suite, own, report, source.step or 0)


def choose_episodes(
    scene: Scene, tasks: Sequence[str] | None, goals: Sequence[int] | None, failures: int | None
) -> dict[str, list[int]]:
    """Of each task the goals to film.

    Args:
        scene: What is filmed.
        tasks: Of these tasks; all by default.
        goals: These goals.
        failures: The first that many failed ones.
    """
    played = scene.protocol.plays(scene.suite)
    names = [name for name in played.task_names if tasks is None or name in tasks]
    unknown = [name for name in tasks or () if name not in played.task_names]
    if unknown:
        raise InputError(f"unknown tasks {unknown}; the run plays {list(played.task_names)}.")
    if failures is None:
        first = played.goals(scene.protocol.split)[0]
        return {name: list(dict.fromkeys(goals or [first])) for name in names}
    assert scene.report is not None
    wanted = {}
    for name in names:
        rows = [it for it in scene.report.episodes if it.task == name and (goals is None or it.goal in goals)]
        failed = [it for it in rows if not it.success]
        if name in scene.report.returns_only:
            failed.sort(key=lambda it: it.reward)
        wanted[name] = [it.goal for it in failed[:failures]]
    return wanted
