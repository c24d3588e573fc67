"""What is told of an episode that fails in a worker, suites that live in a script, and Ctrl-C beside busy processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.evaluator import evaluate
from mtorl.envs.point_reach import PointEnv
from mtorl.envs.policies import ExpertPolicy
from mtorl.envs.protocol import Protocol
from mtorl.envs.workers import WorkerPool


class Unstable(Exception):
    """Cannot be built again from its message."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")


class Changed(Exception):
    """Is another one when it is built again."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"changed: {detail}")


FAILURES: dict[str, Any] = {
    "plain": lambda: ValueError("the simulator stopped"),
    "cannot be unpickled": lambda: Unstable(7, "the simulator stopped"),
    "is another one when unpickled": lambda: Changed("the simulator stopped"),
    "cannot be pickled": lambda: ValueError("the simulator stopped", threading.Lock()),
    "ends the process": lambda: SystemExit("the simulator stopped"),
}


class FailingEnv(PointEnv):
    """Fails where and as its suite says."""

    def __init__(self, task: str, failure: str, where: str) -> None:
        super().__init__(task)
        self.failure, self.where = failure, where
        self.fail("make")

    def fail(self, where: str) -> None:
        if where == self.where:
            raise FAILURES[self.failure]()

    def reset(self, goal: int) -> Any:
        self.fail("reset")
        return super().reset(goal)

    def step(self, action: Any) -> Any:
        self.fail("step")
        return super().step(action)


class Failing(PointReach):
    """Of such environments."""

    def __init__(self, tasks: Any = None, failure: str = "plain", where: str = "step") -> None:
        super().__init__(tasks)
        self.arguments = {"tasks": list(self.task_names), "failure": failure, "where": where}

    def make(self, task: int) -> PointEnv:
        return FailingEnv(self.task_names[task], self.arguments["failure"], self.arguments["where"])


PLACES = (("make", "making an env"), ("reset", "goal 0, at its reset"), ("step", "goal 0, step 1"))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("failure", FAILURES)
def test_an_exception_of_an_episode_is_told(failure: str, workers: int, tmp_path: Path) -> None:
    """In this process each at every place; in one of its own, which takes seconds to start, each at one of them."""
    turn = list(FAILURES).index(failure) % len(PLACES)
    for where, place in PLACES[turn : turn + 1] if workers else PLACES:
        suite = Failing(["away-1"], failure, where)
        with pytest.raises(Exception, match="the simulator stopped") as told:
            collect(suite, tmp_path / where, episodes=1, workers=workers, quiet=True)
        text = f"{told.value} {getattr(told.value, '__notes__', '')} {getattr(told.value.__cause__, '__notes__', '')}"
        assert "in away-1, " in text and place in text, text
    if workers and failure != "plain":
        return  # evaluations use the same workers in the same way
    with pytest.raises(Exception, match="the simulator stopped"), WorkerPool(workers) as pool:
        evaluate(ExpertPolicy(suite), suite, Protocol(goals=1), pool, quiet=True)


class Unpackable:
    """Something that workers cannot read."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise Unstable(3, "nothing to build it from")


def test_a_job_that_cannot_be_read_is_told() -> None:
    with pytest.raises(RuntimeError, match="Unstable: 3: nothing to build it from"), WorkerPool(1) as pool:
        list(pool.run(len, [([Unpackable()],)]))


SCRIPT = """
import sys
from mtorl.agents import BehaviorCloning
from mtorl.envs import PointReach
from mtorl.envs.policies import ExpertPolicy
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.runs.training import train


class Mine(PointReach):
    pass


class Agent(BehaviorCloning):
    pass


if __name__ == "__main__":
    workers = int(sys.argv[1])
    data = collect(Mine(["away-1"]), "data", episodes=2, workers=workers, quiet=True)
    run = train(
        data=str(data.path), out="run", agent="__main__.Agent", agent__hidden=[8], schedule__steps=4,
        schedule__evaluate_every=2, evaluate_goals=2, workers=workers, quiet=True,
    )
    report = run.evaluate(Protocol(goals=2), workers=workers, quiet=True)
    print(data.manifest["suite"]["class_path"], report.suite["class_path"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_suite_and_an_agent_in_a_script(workers: str, tmp_path: Path) -> None:
    """Others know the suite by the name of the script's file."""
    (tmp_path / "my_script.py").write_text(SCRIPT)
    command = [sys.executable, "my_script.py", workers]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["my_script.Mine", "my_script.Mine"]
    assert "or move the class into a module of its own" in done.stderr
    words = ["evaluate", "--policy", "expert", "--suite", "my_script.Mine", "--goals", "1", "--workers", "1"]
    done = subprocess.run([sys.executable, "-m", "mtorl", *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "away-1" in done.stdout, done.stderr


@contextmanager
def busy() -> Iterator[None]:
    """Two processes that do nothing as fast as they can."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


COMMANDS = {
    "evaluate": "evaluate --policy random {suite} --goals 50 --out out",
    "collect": "collect {suite} --recipe random --episodes 500 --out out",
    "ablate": "ablate --config ablation.yaml --out out",
}


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_beside_busy_processes(command: str, workers: str, store: EpisodeStore, tmp_path: Path) -> None:
    """It takes two seconds there; the bound leaves room for a machine that is busier still."""
    (tmp_path / "base.yaml").write_text(f"data: [{store.path}]\nschedule: {{steps: 100000, evaluate_every: 0}}\n")
    (tmp_path / "ablation.yaml").write_text("base: base.yaml\nvary: {seed: [0, 1]}\nstop_at_success: true\n")
    words = COMMANDS[command].format(suite="--suite PointReach --suite.horizon 20000").split()
    process = subprocess.Popen(
        [sys.executable, "-m", "mtorl", *words, "--workers", workers],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not any(path.is_file() for path in tmp_path.glob("out/**/*")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.05)
    with busy():
        start = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, message = process.communicate(timeout=120)
    assert process.returncode == 130 and "interrupted: " in message and "Traceback" not in message, message
    assert time.monotonic() - start < 15
