"""The methods that step in their own way, on the real thing."""

from pathlib import Path

import pytest

from mtorl.envs import MetaWorld
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.runs.training import train

TASKS = ["reach-v3", "drawer-open-v3", "window-close-v3", "button-press-topdown-v3"]
METHODS: dict[str, dict] = {
    "ConnectionStrength": {"agent.task_gain": True},
    "SelectiveTaskGroups": {},
    "BayesAgg": {"agent.output_heads": "linear"},
}


@pytest.mark.simulator
@pytest.mark.slow
def test_they_clone_nearly_as_well_as_plain_training(tmp_path: Path) -> None:
    """At least four fifths of its success, from 8 episodes per task in 300 steps."""
    data = collect(MetaWorld(tasks=TASKS), tmp_path / "data", "expert", episodes=8, workers=0, quiet=True)
    found = {}
    for name, options in {"Equal": {}, **METHODS}.items():
        run = train(
            "configs/bc_mt10_few.yaml",
            data=str(data.path),
            out=str(tmp_path / name),
            balancer=name,
            threads=1,
            workers=0,
            quiet=True,
            **{"schedule.steps": 300, "schedule.monitor_every": 0, "schedule.evaluate_every": 0, **options},
        )
        found[name] = run.evaluate(Protocol(goals=5, stop_at_success=True), workers=0, quiet=True).mean_success
    assert found["Equal"] > 0.7, found
    assert all(found[name] >= 0.8 * found["Equal"] for name in METHODS), found
