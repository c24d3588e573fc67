"""Idle threads wait passively, unless the user or an earlier import decided otherwise."""

import os
import subprocess
import sys

import pytest

from mtorl.envs.workers import WorkerPool

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SHOW = f"import os; print({{name: os.environ[name] for name in {SETTINGS} if name in os.environ}})"


def _python(code: str, **settings: str) -> str:
    plain = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**plain, **settings}, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize(
    ("code", "settings", "expected"),
    [
        ("import mtorl", {}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ("import mtorl.envs", {}, {"OMP_WAIT_POLICY": "PASSIVE"}),
        ("import torch, mtorl", {}, {}),
        *[
            ("import mtorl", {name: value}, {name: value})
            for name, value in zip(SETTINGS, ("active", "9", "7"), strict=True)
        ],
    ],
)
def test_what_importing_sets(code: str, settings: dict, expected: dict) -> None:
    assert _python(f"{code}; {SHOW}", **settings) == str(expected)


def _setting() -> str | None:
    return os.environ.get("OMP_WAIT_POLICY")


def test_workers_inherit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    with WorkerPool(1) as pool:
        assert list(pool.run(_setting, [()])) == ["PASSIVE"]


IDLE = """
import mtorl, time, torch
torch.set_num_threads(2)
values = torch.ones(512, 512)
values @ values
before = time.process_time()
for _ in range(20):
    torch.ones(100_000).exp_()  # wakes the second thread, which then has nothing to do
    time.sleep(0.01)
print(time.process_time() - before)
"""


def test_a_thread_without_work_takes_no_processor() -> None:
    passive, active = float(_python(IDLE)), float(_python(IDLE, OMP_WAIT_POLICY="ACTIVE"))
    assert passive < active / 2, (passive, active)
