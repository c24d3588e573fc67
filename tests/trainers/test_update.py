import numpy as np
import pytest
import torch
from torch import Tensor

from mtorl import InputError
from mtorl.agents import BehaviorCloning, DecisionTransformer
from mtorl.agents.base import Agent
from mtorl.datasets.sampler import TaskBatch, TaskSampler
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext
from mtorl.trainers.balancers import Equal
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.sharing import Shared, Sharing
from mtorl.trainers.update import MultiTaskUpdate


class Scaled(Sharing):
    """Task t computes with the shared parameters times 1 + t: a sharing that can be checked by hand."""

    def effective(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        return {name: value * (1 + task) for name, value in parameters.items()}


@pytest.fixture
def agent(spec: DataSpec) -> BehaviorCloning:
    torch.manual_seed(0)
    return BehaviorCloning(spec, hidden=(16,), task_identity="embed", output_heads="per_task")


@pytest.fixture
def batch(store: EpisodeStore, spec: DataSpec) -> TaskBatch:
    return TaskSampler([store], spec.task_names, 5, 1, np.random.default_rng(0)).draw()


def update(agent: Agent, batch: TaskBatch, sharing: Sharing | None = None, index: int = 0) -> MultiTaskUpdate:
    optimizer = PhaseOptimizer(OptimizerSettings(), agent, [], agent.task_rows(), 10)
    return MultiTaskUpdate(agent, 0, optimizer, batch, sharing or Shared(), index, 10, seed=0)


def test_equal_takes_the_mean_of_the_losses(agent: BehaviorCloning, batch: TaskBatch) -> None:
    one = update(agent, batch)
    assert Equal().weights(torch.ones(4), torch.arange(4)).tolist() == [0.25] * 4
    losses = agent(0, batch).values
    expected = torch.autograd.grad(losses.mean(), list(agent.parameters()))
    numbers = Equal().step(one)
    total = torch.stack([value.norm() for value in expected]).norm()
    assert numbers["gradient_norm"] == pytest.approx(float(total), rel=1e-5)
    torch.testing.assert_close(one.last_losses, losses.detach())


def test_each_task_computes_with_its_own_parameters(agent: BehaviorCloning, batch: TaskBatch) -> None:
    found = update(agent, batch.select([2, 1]), Scaled()).losses().values
    shared = agent.phases[0].space.select(agent)
    for position, task in enumerate((2, 1)):
        scaled = {name: value * (1 + task) for name, value in shared.items()}
        expected = torch.func.functional_call(agent, scaled, (0, batch.select([task]))).values
        torch.testing.assert_close(found[position], expected[0])
    (gradient,) = torch.autograd.grad(found[1], [agent.backbone[0].weight])
    assert gradient.any(), "the gradient reaches the shared parameters"


def test_a_policy_plays_each_task_with_its_own_parameters(agent: BehaviorCloning, spec: DataSpec) -> None:
    policy = TaskPolicy(agent, {"policy": Scaled()})
    plain = TaskPolicy(agent, {"policy": Shared()})
    observations, rewards = np.ones((2, 4), np.float32), np.zeros(2, np.float32)
    shared = agent.phases[0].space.select(agent)
    for task in (0, 2, 0):
        context = RolloutContext(np.array([task, task]), np.arange(2))
        policy.reset(context)
        other = BehaviorCloning(spec, hidden=(16,), task_identity="embed", output_heads="per_task")
        other.load_state_dict(agent.state_dict())
        other.load_state_dict({name: value * (1 + task) for name, value in shared.items()}, strict=False)
        other.reset(context)
        np.testing.assert_allclose(policy.act(observations, rewards), other.act(observations, rewards), rtol=1e-6)
    plain.reset(context)
    np.testing.assert_array_equal(plain.act(observations, rewards), policy.act(observations, rewards))


def test_a_policy_is_a_copy(agent: BehaviorCloning) -> None:
    policy = TaskPolicy(agent, {"policy": Shared()})
    with torch.no_grad():
        agent.backbone[0].weight.zero_()
    assert policy.agent.backbone[0].weight.any()


def test_all_passes_of_one_update_share_their_dropout(spec: DataSpec, store: EpisodeStore) -> None:
    agent = DecisionTransformer(spec, width=16, layers=1, attention_heads=2, context=4, dropout=0.5)
    batch = TaskSampler([store], spec.task_names, 5, 4, np.random.default_rng(0)).draw()
    before = torch.get_rng_state()
    one, other = update(agent, batch, index=3), update(agent, batch, index=4)
    assert torch.equal(one.losses().values, one.losses().values)
    assert not torch.equal(one.losses().values, other.losses().values)
    assert torch.equal(torch.get_rng_state(), before), "the global random state is left alone"


def test_a_loss_that_is_not_finite_names_task_and_step(agent: BehaviorCloning, batch: TaskBatch) -> None:
    actions = batch.actions.clone()
    actions[1] = float("nan")
    bad = TaskBatch(**{**vars(batch), "actions": actions})
    with pytest.raises(InputError, match=r"phase policy is not finite at step 7: towards-2 \(nan\)\."):
        update(agent, bad, index=7).losses()
