import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.agents import BehaviorCloning
from mtorl.datasets.spec import DataSpec
from mtorl.envs.base import RolloutContext


def test_sizes_are_those_of_the_reference_probe() -> None:
    count = BehaviorCloning(wide_spec())
    assert sum(value.numel() for value in count.parameters()) == 49 * 400 + 400 + 2 * (400 * 400 + 400) + 400 * 4 + 4


def wide_spec() -> DataSpec:
    return DataSpec(
        task_names=tuple(map(str, range(10))),
        observation_dim=39,
        action_dim=4,
        horizon=500,
        suite={},
        steps=(1,) * 10,
        episodes=(1,) * 10,
        observation_mean=((0.0,) * 39,) * 10,
        observation_std=((0.0,) * 39,) * 10,
        return_quantiles=((1.0,) * 21,) * 10,
        success_rate=(1.0,) * 10,
        success_last_rate=(1.0,) * 10,
    )


def test_constant_dimensions_do_not_blow_up() -> None:
    agent = BehaviorCloning(wide_spec())
    observations = torch.full((10, 2, 1, 39), 0.02)
    found = agent.normalise(observations, torch.arange(10))
    assert torch.allclose(found, torch.full_like(found, 2.0)), "0.02 over the floor of 0.01"
    assert agent.normalise(observations * 100, torch.arange(10)).max() == 5.0


@pytest.mark.parametrize("options", [{"hidden": []}, {"hidden": [0]}, {"std_floor": 0.0}, {"clip": -1.0}])
def test_impossible_sizes_are_refused(spec: DataSpec, options: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        BehaviorCloning(spec, **options)


def test_it_learns_a_function_of_the_task(spec: DataSpec) -> None:
    """Opposite targets for the same observation: only the task tells them apart."""
    torch.manual_seed(0)
    agent = BehaviorCloning(spec, hidden=(32,))
    optimizer = torch.optim.Adam(agent.parameters(), 0.01)
    observations, tasks = torch.randn(3, 16, 1, 4), torch.arange(3)
    targets = torch.tensor([0.5, -0.5, 0.0]).view(3, 1, 1, 1).expand(3, 16, 1, 2)
    for _ in range(150):
        optimizer.zero_grad()
        losses = agent.head.losses(
            agent._features(observations, tasks), targets, torch.ones(3, 16, 1, dtype=torch.bool), tasks
        )
        losses.sum().backward()
        optimizer.step()
    assert losses.max() < 1e-3
    agent.reset(RolloutContext(np.array([0, 1]), np.zeros(2, np.int64)))
    actions = agent.act(np.zeros((2, 4), np.float32), np.zeros(2, np.float32))
    assert actions[0].min() > 0.3 and actions[1].max() < -0.3
