import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from mtorl import InputError
from mtorl.envs import PointReach
from mtorl.envs.base import RolloutContext, Step
from mtorl.envs.evaluator import evaluate, play_block
from mtorl.envs.policies import ExpertPolicy, RandomPolicy
from mtorl.envs.protocol import Protocol
from mtorl.envs.references import evaluate_reference
from mtorl.envs.results import EvalReport, Played, Source
from mtorl.envs.workers import WorkerPool
from mtorl.intervals import mean_rate_interval


class Scripted:
    """An environment with given rewards and success flags."""

    def __init__(self, flags: list[bool], terminated_at: int = -1) -> None:
        self.flags, self.terminated_at = flags, terminated_at

    def reset(self, goal: int) -> np.ndarray:
        self.step_number = 0
        return np.zeros(4, np.float32)

    def step(self, action: np.ndarray) -> Step:
        success = self.flags[self.step_number % len(self.flags)] if self.step_number < len(self.flags) else False
        self.step_number += 1
        return Step(np.full(4, self.step_number, np.float32), 10.0, success, self.step_number == self.terminated_at)


class Recorder:
    """A policy that remembers what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple] = []

    def reset(self, context: RolloutContext) -> None:
        self.context = context

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        self.seen.append((observations.copy(), rewards.copy()))
        return np.zeros((len(observations), 2), np.float32)


def test_success_latches_and_the_last_step_is_apart(suite: PointReach) -> None:
    environments = [Scripted([False] * 7 + [True]), Scripted([False] * 49 + [True]), Scripted([False])]
    short, last, never = play_block(Recorder(), suite, environments, 1, [50, 51, 52], Protocol(block=4))
    assert (short.success, short.success_last, short.length, short.reward) == (True, False, 50, 500.0)
    assert (last.success, last.success_last) == (True, True)
    assert (never.success, never.success_last) == (False, False)
    assert [one.goal for one in (short, last, never)] == [50, 51, 52] and short.task == "towards-2"


def test_stopping_at_success(suite: PointReach) -> None:
    environments = [Scripted([False] * 7 + [True]), Scripted([False], terminated_at=12)]
    policy = Recorder()
    stopped, ended = play_block(
        policy, suite, environments, 0, [0, 1], Protocol("official", stop_at_success=True, block=4)
    )
    assert (stopped.success, stopped.success_last, stopped.length) == (True, None, 8)
    assert (ended.success, ended.length) == (False, 12)
    assert len(policy.seen) == 12
    assert {len(observations) for observations, _ in policy.seen} == {4}, "finished and filled rows stay in the batch"


def test_policies_get_observations_and_the_rewards_before_them(suite: PointReach) -> None:
    policy = Recorder()
    play_block(policy, suite, [Scripted([False])], 2, [5], Protocol(block=2, seed=9))
    assert policy.context.tasks.tolist() == [2, 2] and policy.context.goals.tolist() == [5, 5]
    assert policy.context.seed == 9
    assert [step[0][0, 0] for step in policy.seen[:3]] == [0, 1, 2]
    assert [step[1][0] for step in policy.seen[:3]] == [0, 10, 10]


def test_reports_do_not_depend_on_workers_or_repetition(suite: PointReach) -> None:
    reports = []
    for workers in (0, 1, 2):
        with WorkerPool(workers) as pool:
            for _ in range(2):
                reports.append(evaluate(RandomPolicy(suite), suite, Protocol(goals=13, block=4), pool, quiet=True))
    assert all(report == reports[0] for report in reports)
    assert len(reports[0].episodes) == 39


def test_protocols_play_their_goals(suite: PointReach) -> None:
    with WorkerPool(0) as pool:
        for name, goals in (("official", range(50)), ("heldout", range(50, 100))):
            report = evaluate(ExpertPolicy(suite), suite, Protocol(name), pool, quiet=True)  # type: ignore[arg-type]
            assert [one.goal for one in report.episodes if one.task == "away-0"] == list(goals)
            assert report.mean_success == 1
    with pytest.raises(InputError, match="50 goals per task; found goals=51"), WorkerPool(0) as pool:
        evaluate(ExpertPolicy(suite), suite, Protocol(goals=51), pool)
    with pytest.raises(InputError, match="unknown protocol 'best'"):
        Protocol("best")  # type: ignore[arg-type]


def test_the_expert_sees_a_goal_that_is_hidden_from_agents(suite: PointReach) -> None:
    hidden = PointReach(suite.task_names, goal_visible=False)
    with WorkerPool(0) as pool:
        assert evaluate(ExpertPolicy(hidden), hidden, Protocol(goals=5), pool, quiet=True).mean_success == 1
    policy = Recorder()
    play_block(policy, hidden, [Scripted([False])], 0, [1], Protocol())
    assert not policy.seen[5][0][:, 2:].any() and policy.seen[5][0][0, :2].all()


def report(successes: dict[str, list[bool]]) -> EvalReport:
    episodes = tuple(
        Played(task, goal, flag, flag, 1.0 + goal, 5)
        for task, flags in successes.items()
        for goal, flag in enumerate(flags)
    )
    return EvalReport(
        "x", tuple(successes), episodes, Protocol(goals=2), {"class_path": "c", "init_args": {}}, {"v": "1"}
    )


def test_rates_intervals_and_the_mean_over_tasks() -> None:
    found = report({"a": [True] * 9 + [False], "b": [False] * 5})
    first, second = found.tasks()
    assert (first.rate, first.episodes, second.rate) == (0.9, 10, 0.0)
    assert (first.low, first.high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert first.mean_return == 5.5
    assert found.mean_success == 0.45, "tasks count alike, whatever their number of episodes"
    assert found.mean_interval() == mean_rate_interval([9, 0], [10, 5])
    low, high = report({"a": [True] * 10, "b": [True] * 10}).mean_interval()
    assert low < 0.9 and high == 1, "a perfect score is no certainty"


def test_reports_survive_their_file(tmp_path: Path) -> None:
    found = report({"a": [True, False]})
    found.save(tmp_path / "r.json")
    assert EvalReport.load(tmp_path / "r.json") == found
    assert json.loads((tmp_path / "r.json").read_text())["mean_success"] == 0.5
    (tmp_path / "bad.json").write_text('{"schema": 1}')
    with pytest.raises(InputError, match=r"evaluation report .*bad\.json is malformed"):
        EvalReport.load(tmp_path / "bad.json")
    (tmp_path / "odd.json").write_text('{"schema": "1"}')
    with pytest.raises(InputError, match="expected an object with a schema number"):
        EvalReport.load(tmp_path / "odd.json")
    (tmp_path / "new.json").write_text('{"schema": 7}')
    with pytest.raises(InputError, match="schema 7"):
        EvalReport.load(tmp_path / "new.json")


class Failing(RandomPolicy):
    """Breaks in the second task."""

    def reset(self, context: RolloutContext) -> None:
        super().reset(context)
        if context.tasks is not None and context.tasks[0] == 1:
            raise KeyboardInterrupt


def test_an_interrupted_evaluation_continues(suite: PointReach, tmp_path: Path) -> None:
    out, partial = tmp_path / "e.json", tmp_path / "e.partial"
    protocol = Protocol(goals=6, block=3)
    with pytest.raises(KeyboardInterrupt), WorkerPool(0) as pool:
        evaluate(Failing(suite), suite, protocol, pool, out=out, source=Source(sha256="a"), quiet=True)
    with partial.open("a") as file:
        file.write('[{"task": "towards')  # the process died while it wrote
    kept = partial.read_text()
    with WorkerPool(0) as pool:
        whole = evaluate(RandomPolicy(suite), suite, protocol, pool, quiet=True)
        continued = evaluate(Counting(suite), suite, protocol, pool, out=out, source=Source(sha256="a"), quiet=True)
        assert continued == dataclasses.replace(whole, policy="policy", source=Source(sha256="a"))
        assert Counting.blocks == 4, "two of six blocks were kept"
        assert EvalReport.load(out) == continued and not partial.exists()
        partial.write_text(kept)
        Counting.blocks = 0
        evaluate(Counting(suite), suite, protocol, pool, out=out, source=Source(sha256="other weights"), quiet=True)
        assert Counting.blocks == 6


class Counting(RandomPolicy):
    """Counts blocks."""

    blocks = 0

    def reset(self, context: RolloutContext) -> None:
        type(self).blocks += 1
        super().reset(context)


class Leaning:
    """Moves along one direction. The class counts blocks and breaks at one, because policies are copied."""

    blocks = breaks_at = 0

    def __init__(self, direction: float) -> None:
        self.direction = direction

    def reset(self, context: RolloutContext) -> None:
        self.rows = len(context.goals)
        Leaning.blocks += 1
        if Leaning.blocks == Leaning.breaks_at:
            raise KeyboardInterrupt

    def act(self, observations: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        return np.full((self.rows, 2), self.direction, np.float32)


def test_evaluations_that_share_a_file_keep_apart(
    suite: PointReach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policies of one class and name, known by their content: both are stopped, and each goes on with its own."""
    out, partial, protocol = tmp_path / "e.json", tmp_path / "e.partial", Protocol(goals=6, block=3)
    with WorkerPool(0) as pool:
        plain = {way: evaluate(Leaning(way), suite, protocol, pool, quiet=True) for way in (-1.0, 1.0)}
        monkeypatch.setattr(Leaning, "breaks_at", 4)
        for way in plain:
            Leaning.blocks = 0
            with pytest.raises(KeyboardInterrupt):
                evaluate(Leaning(way), suite, protocol, pool, out=out, quiet=True)
        kept = partial.read_text()
        for way, expected in plain.items():
            partial.write_text(kept)
            Leaning.blocks = 10
            assert evaluate(Leaning(way), suite, protocol, pool, out=out, quiet=True) == expected
            assert Leaning.blocks == 10 + 3, "three of six blocks were kept"


def test_a_report_of_another_policy_is_not_replaced(suite: PointReach, tmp_path: Path) -> None:
    out = tmp_path / "e.json"
    with WorkerPool(0) as pool:
        for _ in range(2):
            evaluate(Leaning(1.0), suite, Protocol(goals=1), pool, "right", out, quiet=True)
        kept = out.read_bytes()
        with pytest.raises(InputError, match=r"e\.json holds the evaluation of another policy, 'right'; found 'left'"):
            evaluate(Leaning(-1.0), suite, Protocol(goals=1), pool, "left", out, quiet=True)
    assert out.read_bytes() == kept


def test_a_report_that_another_policy_wrote_meanwhile_is_not_replaced(suite: PointReach, tmp_path: Path) -> None:
    class Late(Leaning):
        def reset(self, context: RolloutContext) -> None:
            out.write_text('{"policy": "right"}')
            super().reset(context)

    out = tmp_path / "e.json"
    with pytest.raises(InputError, match="holds the evaluation of another policy"), WorkerPool(0) as pool:
        evaluate(Late(-1.0), suite, Protocol(goals=1), pool, "left", out, quiet=True)
    assert out.read_text() == '{"policy": "right"}'


def test_reference_rows(suite: PointReach, tmp_path: Path) -> None:
    expert = evaluate_reference("expert", suite, Protocol(goals=3), tmp_path, workers=0, quiet=True)
    random = evaluate_reference("random", suite, Protocol(goals=3), tmp_path, workers=0, quiet=True)
    assert expert.mean_success == 1 > random.mean_success
    assert expert.path and expert.path.name.startswith("expert-PointReach-3-tasks-heldout-")
    assert EvalReport.load(expert.path) == expert


def test_a_full_disk_stops_with_a_message(suite: PointReach, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"could not write .*the same command"), WorkerPool(0) as pool:
        out = tmp_path / "file" / "e.json"  # a folder that cannot be made
        evaluate(RandomPolicy(suite), suite, Protocol(goals=1), pool, out=out, quiet=True)


def test_a_report_that_cannot_be_written_loses_no_episode(
    suite: PointReach, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("no space")

    out, protocol = tmp_path / "e.json", Protocol(goals=6, block=3)
    Counting.blocks = 0
    with WorkerPool(0) as pool:
        with monkeypatch.context() as patch, pytest.raises(InputError, match="no space"):
            patch.setattr(EvalReport, "save", refuse)
            evaluate(Counting(suite), suite, protocol, pool, out=out, quiet=True)
        assert Counting.blocks == 6
        evaluate(Counting(suite), suite, protocol, pool, out=out, quiet=True)
    assert Counting.blocks == 6, "nothing was played again" and out.exists()


def test_workers_keep_their_environments(suite: PointReach) -> None:
    with WorkerPool(1) as pool:
        for _ in range(3):
            evaluate(RandomPolicy(suite), suite, Protocol(goals=4, block=2), pool, quiet=True)
        (kept,) = pool.run(_count_environments, [()])
    assert kept == 2 * len(suite.task_names), "one for each row of a block and task, made once"


def _count_environments() -> int:
    from mtorl.envs import workers

    return sum(len(rows) for rows in workers._environments.values())


def test_a_worker_that_dies_is_reported(suite: PointReach) -> None:
    with pytest.raises(InputError, match=r"a worker process died.*fewer --workers"), WorkerPool(1) as pool:
        list(pool.run(os._exit, [(9,)]))


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="workers is -1"):
        WorkerPool(-1)
    with pytest.raises(InputError, match="seed is -1"):
        Protocol(seed=-1)


def test_workers_end_with_their_pool() -> None:
    with WorkerPool(1) as pool:
        assert list(pool.run(max, [(1, 2), (4, 3)])) and pool._executor is not None
        processes = list(pool._executor._processes.values())
    assert all(not process.is_alive() for process in processes)


def test_policies_run_on_one_thread_in_this_process() -> None:
    import torch

    before = torch.get_num_threads()
    with WorkerPool(0) as pool:
        assert list(pool.run(torch.get_num_threads, [()])) == [1]
    assert torch.get_num_threads() == before
