"""Ray's workers do what local processes do, bit for bit; jobs of dead ones are done again."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from mtorl import InputError
from mtorl.datasets.store import EpisodeStore, sha256
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.envs.engines import engine
from mtorl.envs.policies import ExpertPolicy
from mtorl.envs.protocol import Protocol
from mtorl.envs.ray_pool import ATTEMPTS, RayPool
from mtorl.envs.recording import BehaviorPolicy
from mtorl.envs.references import evaluate_reference
from mtorl.envs.results import EvalReport

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of one machine, which this process has joined by itself: pools leave the connection alone."""
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    yield ray.init(address="local", num_cpus=2, **options).address_info["gcs_address"]
    ray.shutdown()


class Unstable(Exception):
    """Cannot be built again from its message."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")


FAILURES: dict[str, Any] = {
    "plain": (ValueError, lambda: ValueError("it stopped")),
    "of the user's input": (InputError, lambda: InputError("it stopped")),
    "cannot be unpickled": (RuntimeError, lambda: Unstable(7, "it stopped")),
    "cannot be pickled": (RuntimeError, lambda: ValueError("it stopped", threading.Lock())),
    "ends the process": (RuntimeError, lambda: SystemExit("it stopped")),
}


def fail(failure: str) -> None:
    error = FAILURES[failure][1]()
    error.add_note("in a test")
    raise error


def test_exceptions_arrive(address: str) -> None:
    for failure, (kind, _) in FAILURES.items():
        with pytest.raises(Exception, match="it stopped") as told, RayPool(1) as pool:
            list(pool.run(fail, [(failure,)]))
        assert type(told.value) is kind, failure
        assert "in a test" in f"{told.value} {getattr(told.value, '__notes__', '')} {told.value.__cause__}", failure
    assert ray.is_initialized()


def threads(number: int) -> tuple[int, list[str | None]]:
    count: int = torch.get_num_threads()
    return number * count, [os.environ.get(f"{name}_NUM_THREADS") for name in ("OMP", "MKL", "OPENBLAS")]


def die(folder: str, number: int, times: int) -> int:
    """Kills its process the first few times."""
    tried = Path(folder) / str(number)
    with tried.open("a") as file:
        file.write(".")
    if len(tried.read_text()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_dead_workers_job_is_done_again(address: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="a worker died; its job is done again"), RayPool(2) as pool:
        found = pool.run(die, [(str(tmp_path), number, int(number == 3)) for number in range(6)])
        assert sorted(found) == list(range(6))
    assert (tmp_path / "3").read_text() == ".."


def test_a_job_that_always_kills_its_worker(address: str, tmp_path: Path) -> None:
    message = f"a worker died, {ATTEMPTS} times with the same job.*fewer --workers"
    with pytest.raises(InputError, match=message), pytest.warns(UserWarning), RayPool(1) as pool:
        list(pool.run(die, [(str(tmp_path), 0, 100)]))
    assert (tmp_path / "0").read_text() == "." * ATTEMPTS


def test_one_thread_and_any_number_of_jobs(address: str) -> None:
    with RayPool(2) as pool:
        assert sorted(pool.run(threads, [(k,) for k in range(5)])) == [(k, ["1"] * 3) for k in range(5)]
        assert list(pool.run(threads, [])) == []
    with RayPool(0) as pool:  # in this process
        assert list(pool.run(die, [("/tmp", 0, 0)])) == [0]


def test_evaluations_and_collections_have_the_same_bits(address: str, tmp_path: Path) -> None:
    suite, there = PointReach(["towards-0", "away-1"]), {}
    for name in ("local", "ray"):
        with engine(name):  # type: ignore[arg-type]
            stores = [
                collect(suite, tmp_path / name / "mixed", "mixed", episodes=12, quiet=True),
                collect(
                    suite,
                    tmp_path / name / "policy",
                    episodes=12,
                    quiet=True,
                    policy=BehaviorPolicy(ExpertPolicy(suite), suite, "mine", 0.2),
                ),
            ]
            report = evaluate_reference("random", suite, Protocol(goals=12), tmp_path / name, quiet=True)
        assert report.path is not None
        files = [path for store in stores for path in sorted(store.path.glob("*"))] + [report.path]
        there[name] = [(path.name, sha256(path)) for path in files]
    assert there["local"] == there["ray"] and len(there["ray"]) > 10


MINE = """
import os, signal
from pathlib import Path
from mtorl.trainers.balancers import Equal


class Mine(Equal):
    def step(self, update):
        if FLAG.exists() and update.progress > 0.5:
            FLAG.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(update)


FLAG = Path("kill")
"""


def mtorl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "mtorl", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def values(state: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a checkpoint by its place, but the length of the log, which holds times."""
    if isinstance(state, dict | list | tuple):
        for key, value in state.items() if isinstance(state, dict) else enumerate(state):
            yield from values(value, f"{name}.{key}")
    elif name != ".log_bytes":
        yield name, state.numpy().tobytes() if isinstance(state, torch.Tensor) else state


def results(folder: Path) -> dict[str, Any]:
    """What runs have learned and how they were judged, bit for bit."""
    found: dict[str, Any] = {}
    for path in folder.glob("out/*/checkpoints/*.pt"):
        found[str(path.relative_to(folder))] = dict(values(torch.load(path, weights_only=True)))
    for path in folder.glob("out/*/evaluations/*.json"):
        report = EvalReport.load(path)
        found[str(path.relative_to(folder))] = replace(report, source=replace(report.source, sha256=None), path=None)
    return found


@pytest.mark.training
def test_a_sweep_whose_worker_is_killed(address: str, store: EpisodeStore, train_options: dict, tmp_path: Path) -> None:
    """By the command line, on the cluster of that address, whose processes were started in another folder.

    One run is finished already.
    """
    options = {key: value for key, value in train_options.items() if key not in ("out", "agent.hidden")}
    options |= {"data": [str(store.path)], "agent": {"class_path": "BehaviorCloning", "init_args": {"hidden": [8]}}}
    vary = {"balancer": ["mine.Mine", "Equal", "PCGrad"], "seed": [0]}
    local, there = tmp_path / "local", tmp_path / "ray"
    for folder in (local, there):
        folder.mkdir()
        (folder / "mine.py").write_text(MINE)
        (folder / "base.yaml").write_text(yaml.safe_dump(options))
        (folder / "ablation.yaml").write_text(json.dumps({"base": "base.yaml", "vary": vary, "goals": 2}))
    command = ["ablate", "--config", "ablation.yaml", "--quiet", "--out", "out"]
    mtorl(local, *command, "--workers", "0")
    shutil.copytree(local / "out/PCGrad-seed0", there / "out/PCGrad-seed0")
    files = [*there.glob("out/*/checkpoints/*"), *there.glob("out/*/evaluations/*")]
    kept = {path: path.stat().st_mtime_ns for path in files}
    (there / "kill").touch()
    done = mtorl(there, *command, "--engine", "ray", "--address", address)
    assert "its job is done again" in done.stderr and not (there / "kill").exists()
    found, expected = results(there), results(local)
    assert found.keys() == expected.keys() and len(expected) >= 6
    assert not [name for name in expected if found[name] != expected[name]]
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items()) and kept


def test_ctrl_c_ends_at_once_and_leaves_what_is_finished(tmp_path: Path) -> None:
    """Ray started by the command itself; a terminal sends the signal to all of its processes."""
    suite = ["--suite", "PointReach", "--suite.horizon", "2000"]
    command = ["collect", *suite, "--recipe", "random", "--episodes", "500", "--out", "out", "--engine", "ray"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mtorl", *command],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not any(tmp_path.glob("out/parts/*.npz")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 130 and "continue with the same command" in message, message
    assert "Traceback" not in message
    assert any(tmp_path.glob("out/parts/*.npz"))
