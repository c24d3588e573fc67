"""What goes wrong in a job is told, and Ctrl-C stops it at once, whatever the number of workers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtorl.envs import PointReach
from mtorl.envs.base import ExpertPolicy, Suite
from mtorl.envs.collect import collect
from mtorl.envs.evaluator import Protocol, evaluate
from mtorl.envs.point_reach import PointEnv
from mtorl.envs.workers import WorkerPool

DEADLINE = 15.0
"""Seconds after Ctrl-C, for machines that are busy with more; one or two are what it takes."""


class SimulatorError(Exception):
    """Cannot be built again from its message."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")


class Handle:
    """Cannot be sent."""

    def __reduce__(self) -> str:
        raise TypeError("no handle leaves its process")


class Unstable(PointEnv):
    """Goes wrong in the way that the horizon says: suites carry their arguments."""

    def __init__(self, name: str, horizon: int) -> None:
        self.horizon = horizon
        if horizon == 1:
            raise SimulatorError(7, "the model became unstable")
        super().__init__(name)

    def step(self, action: object) -> object:  # type: ignore[override]
        errors = {
            2: SimulatorError(7, "the model became unstable"),
            3: ValueError("the model became unstable", Handle()),
            4: SystemExit("the model became unstable"),
            5: SystemExit(0),
            6: KeyError("the model became unstable"),
        }
        raise errors[self.horizon]


class UnstableSuite(PointReach):
    """Of such environments."""

    def make(self, task: int) -> PointEnv:
        return Unstable(self.task_names[task], self.horizon)


def play(suite: Suite, folder: Path, workers: int, how: str) -> None:
    if how == "collect":
        collect(suite, folder / "data", episodes=1, workers=workers, quiet=True)
    else:
        with WorkerPool(workers) as pool:
            evaluate(ExpertPolicy(suite), suite, Protocol(goals=1), pool, quiet=True)


@pytest.mark.parametrize("how", ["collect", "evaluate"])
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6])
def test_an_exception_is_told_with_its_text_and_task(tmp_path: Path, kind: int, workers: int, how: str) -> None:
    with pytest.raises(Exception) as caught:  # of the environment's own kind
        play(UnstableSuite(["away-0"], horizon=kind), tmp_path, workers, how)
    told = f"{caught.value} {getattr(caught.value, '__notes__', '')}"
    assert "in away-0, " in told and ("SystemExit: 0" if kind == 5 else "the model became unstable") in told
    assert "memory" not in told
    assert workers == 1 or isinstance(caught.value, (Exception, SimulatorError)[kind < 3])


class Unreadable:
    """Cannot be built again."""

    def __reduce__(self) -> tuple:
        return _fail, ()


def _fail() -> None:
    raise SimulatorError(3, "no such version")


def test_what_cannot_be_unpacked_in_a_worker_is_told() -> None:
    with pytest.raises(RuntimeError, match="SimulatorError: 3: no such version"), WorkerPool(1) as pool:
        list(pool.run(print, [(Unreadable(),)]))


SCRIPT = """
import numpy as np
from mtorl.agents import BehaviorCloning
from mtorl.envs import PointReach
from mtorl.envs.base import RandomPolicy
from mtorl.envs.collect import collect
from mtorl.envs.evaluator import Protocol, evaluate
from mtorl.envs.workers import WorkerPool
from mtorl.trainers import Run, train


class Mine(PointReach):
    def make(self, task):
        return super().make(task)


class MyAgent(BehaviorCloning):
    pass


class MyPolicy(RandomPolicy):
    pass


if __name__ == "__main__":
    suite = Mine(["towards-0", "away-0"])
    for workers in (0, 1):
        store = collect(suite, f"data{workers}", episodes=2, workers=workers, quiet=True)
        print(store.manifest["suite"]["class_path"])
    with WorkerPool(1) as pool:
        print(evaluate(MyPolicy(suite), suite, Protocol(goals=1), pool, quiet=True).suite["class_path"])
    schedule = {"steps": 4, "evaluate_every": 2, "monitor_every": 0}
    run = train(data="data1", out="run", agent="__main__.MyAgent", agent__hidden=[8], schedule=schedule, workers=1,
                evaluate_goals=1, threads=1, quiet=True)
    print(run.evaluate(Protocol(goals=1), workers=1, quiet=True).suite["class_path"])
"""


def test_suites_agents_and_policies_of_a_script(tmp_path: Path) -> None:
    """They work in the script with any number of workers, and data can be used by others, who import the script."""
    (tmp_path / "my_script.py").write_text(SCRIPT)
    run = subprocess.run([sys.executable, "my_script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.split() == ["my_script.Mine"] * 4, run.stderr
    assert "UserWarning: the data name their suite my_script.Mine" in run.stderr
    command = [sys.executable, "-m", "mtorl", "train", "--data", "data0", "--out", "other", "--schedule.steps", "2"]
    again = subprocess.run([*command, "--quiet", "true"], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr


def test_a_suite_of_a_session_is_refused_for_any_number_of_workers(tmp_path: Path) -> None:
    body = SCRIPT.replace('if __name__ == "__main__":', "if True:")
    run = subprocess.run([sys.executable, "-c", body], cwd=tmp_path, capture_output=True, text=True)
    assert "the suite Mine is defined where nobody else can import it from" in run.stderr
    assert "my_suites.Mine" in run.stderr and not run.stdout and not any(tmp_path.iterdir())


SLOW = """
import os
import time
from pathlib import Path
from mtorl.envs import PointReach
from mtorl.envs.point_reach import PointEnv


class SlowEnv(PointEnv):
    def step(self, action):
        if "SLOW" in os.environ:
            Path("playing").touch()
            deadline = time.monotonic() + 0.2
            while time.monotonic() < deadline:
                pass
        return super().step(action)


class Slow(PointReach):
    def make(self, task):
        return SlowEnv(self.task_names[task])
"""
SUITE = ["--suite", "slow_suite.Slow", "--suite.tasks", "towards-0"]
COMMANDS = {
    "collect": ["collect", *SUITE, "--recipe", "random", "--out", "other"],
    "evaluate": ["evaluate", "--policy", "random", *SUITE, "--out", "other"],
    "train": ["train", "--data", "data", "--out", "other", "--schedule.steps", "50", "--schedule.evaluate_every", "10"],
    "ablate": ["ablate", "--config", "ablation.yaml"],
}


@pytest.fixture
def busy() -> Iterator[None]:
    """Two processes that leave no processor idle."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    "command", ["collect", "evaluate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("train", "ablate"))]
)
def test_the_first_interrupt_stops_what_is_played(tmp_path: Path, command: str, workers: str) -> None:
    (tmp_path / "slow_suite.py").write_text(SLOW)
    (tmp_path / "base.yaml").write_text("data: [data]\nschedule: {steps: 4, evaluate_every: 0}\n")
    (tmp_path / "ablation.yaml").write_text("base: base.yaml\nvary: {seed: [0]}\nout: other\n")
    mtorl = [sys.executable, "-m", "mtorl"]
    if command in ("train", "ablate"):
        made = [*mtorl, "collect", *SUITE, "--episodes", "2", "--workers", "0", "--quiet", "true", "--out", "data"]
        subprocess.run(made, cwd=tmp_path, check=True, capture_output=True)
    process = subprocess.Popen(
        [*mtorl, *COMMANDS[command], "--workers", workers, "--quiet", "true"],
        cwd=tmp_path,
        env={**os.environ, "SLOW": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "playing").exists():
        assert process.poll() is None and time.monotonic() < deadline, "it ended before it played"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    began = time.monotonic()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted: " in told and "Traceback" not in told
    assert time.monotonic() - began < DEADLINE
