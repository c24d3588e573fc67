import numpy as np
import pytest
import torch
from families import kept_by
from torch import Tensor

from mtorl import InputError
from mtorl.agents import BehaviorCloning, DecisionTransformer
from mtorl.agents.base import Agent
from mtorl.datasets.sampler import TaskBatch, TaskSampler
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext
from mtorl.trainers.balancers import Equal
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer
from mtorl.trainers.policy import TaskPolicy
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing
from mtorl.trainers.update import MultiTaskUpdate


class Scaled(Sharing):
    """Task t computes with the shared parameters times 1 + t: a sharing that can be checked by hand."""

    def effective(self, parameters: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        return {name: value * (1 + task) for name, value in parameters.items()}

    def pull_back(self, gradients: dict[str, Tensor], task: int) -> dict[str, Tensor]:
        return {name: value * (1 + task) for name, value in gradients.items()}


@pytest.fixture
def agent(spec: DataSpec) -> BehaviorCloning:
    torch.manual_seed(0)
    return BehaviorCloning(spec, hidden=(16,), task_identity="embed", output_heads="per_task")


@pytest.fixture
def batch(store: EpisodeStore, spec: DataSpec) -> TaskBatch:
    return TaskSampler([store], spec.task_names, 5, 1, np.random.default_rng(0)).draw()


def update(agent: Agent, batch: TaskBatch, sharing: Sharing | None = None, index: int = 0) -> MultiTaskUpdate:
    optimizer = PhaseOptimizer(OptimizerSettings(), agent, [], agent.task_rows(), 10)
    return MultiTaskUpdate(PhaseFunctions(agent), optimizer, batch, sharing or Shared(), index, 10, seed=0)


def test_equal_takes_the_mean_of_the_losses(agent: BehaviorCloning, batch: TaskBatch) -> None:
    one = update(agent, batch)
    assert Equal().weights(torch.ones(4), torch.arange(4)).tolist() == [0.25] * 4
    losses = agent(0, batch).values
    expected = torch.autograd.grad(losses.mean(), list(agent.parameters()))
    numbers = Equal().step(one)
    total = torch.stack([value.norm() for value in expected]).norm()
    assert numbers["gradient_norm"] == pytest.approx(float(total), rel=1e-5)
    torch.testing.assert_close(one.first_losses, losses.detach())


def test_each_task_computes_with_its_own_parameters(agent: BehaviorCloning, batch: TaskBatch) -> None:
    found = update(agent, batch.select([2, 1]), Scaled()).losses().values
    shared = agent.phases[0].space.select(agent)
    for position, task in enumerate((2, 1)):
        scaled = {name: value * (1 + task) for name, value in shared.items()}
        expected = torch.func.functional_call(agent, scaled, (0, batch.select([task]))).values
        torch.testing.assert_close(found[position], expected[0])
    (gradient,) = torch.autograd.grad(found[1], [agent.backbone.layers[0].weight])
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
        agent.backbone.layers[0].weight.zero_()
    assert policy.agent.backbone.layers[0].weight.any()


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


@pytest.mark.parametrize("sharing", [Shared(), RandomMasks(0.5), Scaled()], ids=lambda it: type(it).__name__)
def test_descending_the_mean_gradient_is_descending_the_mean_loss(
    spec: DataSpec, batch: TaskBatch, sharing: Sharing
) -> None:
    def build() -> tuple[BehaviorCloning, MultiTaskUpdate]:
        torch.manual_seed(0)
        agent = BehaviorCloning(spec, hidden=(16,), task_identity="embed", output_heads="per_task").double()
        sharing.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
        return agent, update(agent, batch.to("cpu", torch.float64), sharing)

    (first, one), (second, other) = build(), build()
    one.descend_loss(one.losses().values.sum())
    numbers = other.descend(other.gradients().pulled_back.sum(0), torch.ones(3))
    assert numbers["gradient_norm"] > 0 and other.weights is not None
    torch.testing.assert_close(one.first_losses, other.first_losses)
    for expected, found in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_gradients_of_some_tasks_leave_the_heads_of_others_alone(agent: BehaviorCloning, batch: TaskBatch) -> None:
    one = update(agent, batch)
    part = one.select([2])
    gradients = part.gradients()
    assert gradients.task_ids.tolist() == [2] == part.task_ids.tolist()
    assert one.first_losses.isnan().tolist() == [True, True, False], "the whole update knows what its parts saw"
    before = agent.head.weight.detach().clone()
    part.descend(gradients.pulled_back[0])
    assert (agent.head.weight != before).any((1, 2)).tolist() == [False, False, True]
    assert agent.head.weight.grad[2].any() and not agent.head.weight.grad[:2].any()


def test_what_no_task_of_the_batch_uses_does_not_move(spec: DataSpec, batch: TaskBatch) -> None:
    agent = BehaviorCloning(spec, hidden=(16, 16))
    masks = RandomMasks(0.5)
    masks.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
    optimizer = PhaseOptimizer(OptimizerSettings(lr=0.1, weight_decay=0.1, warmup=0), agent, [], [], 10)
    functions = PhaseFunctions(agent)

    def step(tasks: list[int], index: int) -> None:
        one = MultiTaskUpdate(functions, optimizer, batch.select(tasks), masks, index, 10, seed=0)
        one.descend(one.gradients().pulled_back.sum(0))

    step([0, 1, 2], 0)
    before = functions.space.flatten(functions.space.select(agent)).detach().clone()
    step([1], 1)
    moved = functions.space.flatten(functions.space.select(agent)).detach() != before
    kept = kept_by(masks, functions.space, 1)
    assert not moved[~kept].any(), "momentum and decay are held back"
    assert moved[kept].float().mean() > 0.6, "dead units aside, the rest moves"


def test_a_gradient_given_at_the_features(agent: BehaviorCloning, batch: TaskBatch) -> None:
    one = update(agent, batch)
    losses = one.losses()
    expected = torch.autograd.grad(losses.values.mean(), list(agent.parameters()), retain_graph=True)
    (cotangent,) = torch.autograd.grad(losses.values.mean(), [losses.features], retain_graph=True)
    one.descend_features(losses, 3 * cotangent)
    norm = torch.stack([parameter.grad.norm() for parameter in agent.parameters()]).norm()
    assert norm <= 1.0001, "clipped"
    heads = {id(parameter) for parameter in agent.head.parameters()}
    ratios = [
        (parameter.grad.norm() / value.norm() / (1 if id(parameter) in heads else 3)).item()
        for parameter, value in zip(agent.parameters(), expected, strict=True)
    ]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-4), "the backbone's is three times its own"


def test_the_same_batch_at_other_parameters(agent: BehaviorCloning, batch: TaskBatch) -> None:
    one = update(agent, batch, index=4)
    other = one.at(Scaled())
    assert other.progress == one.progress == 0.4
    torch.testing.assert_close(other.losses().values[0], one.losses().values[0])
    assert not torch.equal(other.losses().values[1:], one.losses().values[1:])
