"""The methods that step in their own way, on the real thing."""

from pathlib import Path

import pytest

from mtorl.envs import MetaWorld
from mtorl.envs.collect import collect
from mtorl.envs.protocol import Protocol
from mtorl.runs.training import train

METHODS: dict[str, dict] = {
    "ConnectionStrength": {"agent.task_gain": True},
    "SelectiveTaskGroups": {},
    "BayesAgg": {"agent.output_heads": "linear"},
}


@pytest.mark.simulator
@pytest.mark.slow
def test_they_clone_mt10_nearly_as_well_as_plain_training(tmp_path: Path) -> None:
    """At least four fifths of its success, from 10 episodes per task in 600 steps."""
    data = collect(MetaWorld("MT10"), tmp_path / "data", "expert", episodes=10, quiet=True)
    found = {}
    for name, options in {"Equal": {}, **METHODS}.items():
        run = train(
            "configs/bc_mt10_few.yaml",
            data=str(data.path),
            out=str(tmp_path / name),
            balancer=name,
            threads=2,
            quiet=True,
            **{"schedule.steps": 600, "schedule.monitor_every": 0, **options},
        )
        found[name] = run.evaluate(Protocol(goals=10, stop_at_success=True), quiet=True).mean_success
    assert found["Equal"] > 0.7, found
    assert all(found[name] >= 0.8 * found["Equal"] for name in METHODS), found
