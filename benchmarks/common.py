"""What the benchmark scripts share: describing the machine and writing results."""

import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from mtorl.agents import DecisionTransformer
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.spec import DataSpec

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Processor, cores and Python, in words."""
    model = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = lines[0] if lines else model
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def commit() -> str:
    """The commit that is measured; with a plus if the code was changed since."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(RESULTS.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/benchmarks/results")
    return git("rev-parse", "--short", "HEAD") + "+" * bool(changed)


def save(name: str, content: dict[str, Any]) -> None:
    """Writes `results/NAME.json` with machine, date and commit, and prints it."""
    RESULTS.mkdir(exist_ok=True)
    content = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), "commit": commit(), **content}
    text = json.dumps(content, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)


def make_spec(tasks: int, observation_dim: int = 39, action_dim: int = 4) -> DataSpec:
    """What an agent is built from, of Meta-World's dimensions and without any data."""
    return DataSpec(
        task_names=tuple(map(str, range(tasks))),
        observation_dim=observation_dim,
        action_dim=action_dim,
        horizon=500,
        suite={},
        steps=(1,) * tasks,
        episodes=(1,) * tasks,
        observation_mean=((0.0,) * observation_dim,) * tasks,
        observation_std=((1.0,) * observation_dim,) * tasks,
        return_quantiles=((1.0,) * 21,) * tasks,
        success_rate=(1.0,) * tasks,
        success_last_rate=(1.0,) * tasks,
    )


def make_agent(tasks: int, width: int, layers: int, heads: int) -> DecisionTransformer:
    """A decision transformer with random weights and past actions in its context."""
    spec = make_spec(tasks)
    torch.manual_seed(0)
    return DecisionTransformer(
        spec, width=width, layers=layers, attention_heads=heads, dropout=0.0, action_context="full"
    )


def make_batch(tasks: int, windows: int, length: int = 20) -> TaskBatch:
    """Random windows."""
    shape = (tasks, windows, length)
    return TaskBatch(
        observations=torch.randn(*shape, 39),
        actions=torch.rand(*shape, 4) * 2 - 1,
        rewards=torch.rand(shape),
        returns_to_go=torch.rand(shape),
        timesteps=torch.arange(length).expand(shape),
        valid=torch.ones(shape, dtype=torch.bool),
        task_ids=torch.arange(tasks),
    )
