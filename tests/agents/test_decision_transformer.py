import dataclasses

import numpy as np
import pytest
import torch

from mtorl import InputError
from mtorl.agents import DecisionTransformer, PromptDecisionTransformer
from mtorl.agents.backbones import CausalTransformer
from mtorl.agents.heads import RegressionHead
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.envs.base import RolloutContext

SIZE = {"width": 16, "layers": 2, "attention_heads": 2, "context": 6, "dropout": 0.0}


def random_batch(length: int = 6) -> TaskBatch:
    draw = torch.Generator().manual_seed(0)
    shape = (3, 2, length)
    return TaskBatch(
        observations=torch.randn(*shape, 4, generator=draw).double(),
        actions=torch.rand(*shape, 2, generator=draw).double() * 2 - 1,
        rewards=torch.rand(shape, generator=draw).double(),
        returns_to_go=torch.rand(shape, generator=draw).double() * 30,
        timesteps=torch.arange(length).expand(shape),
        valid=torch.ones(shape, dtype=torch.bool),
        task_ids=torch.arange(3),
    )


@pytest.mark.parametrize("action_context", ["full", "none"])
def test_predictions_depend_on_the_past_only(spec: DataSpec, action_context: str) -> None:
    agent = DecisionTransformer(spec, **SIZE, action_context=action_context).double().eval()
    batch = random_batch()
    before = agent(0, batch).features
    moment = 3
    later = {name: value.clone() for name, value in vars(batch).items() if value is not None}
    for name in ("observations", "rewards", "returns_to_go"):
        later[name][:, :, moment + 1 :] += 1
    later["actions"][:, :, moment:] = 0.123  # the action at the moment itself is what is asked for
    after = agent(0, TaskBatch(**later)).features
    torch.testing.assert_close(after[:, :, : moment + 1], before[:, :, : moment + 1], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(after[:, :, moment + 1 :], before[:, :, moment + 1 :])


@pytest.mark.parametrize("column", ["observations", "returns_to_go", "actions"])
def test_what_is_in_the_context_matters(spec: DataSpec, column: str) -> None:
    batch = random_batch()
    changed = {name: value.clone() for name, value in vars(batch).items() if value is not None}
    changed[column][:, :, 2] += 0.5
    seen = DecisionTransformer(spec, **SIZE, action_context="full").double().eval()
    assert not torch.allclose(seen(0, batch).features[:, :, 4], seen(0, TaskBatch(**changed)).features[:, :, 4])
    unseen = DecisionTransformer(spec, **SIZE, action_context="none", return_conditioning=False).double().eval()
    same = torch.equal(unseen(0, batch).features, unseen(0, TaskBatch(**changed)).features)
    assert same == (column != "observations")


def test_action_dropout_hides_past_actions_in_training_only(spec: DataSpec) -> None:
    agent = DecisionTransformer(spec, **SIZE, action_context="dropout", action_dropout=1.0).double()
    batch = random_batch()
    changed = TaskBatch(**{**vars(batch), "actions": batch.actions * 0.5})
    assert torch.equal(agent(0, batch).features, agent(0, changed).features)
    agent.eval()
    assert not torch.allclose(agent(0, batch).features, agent(0, changed).features)


def test_loss_of_one_valid_step_by_hand() -> None:
    head = RegressionHead(3, 4, 1)
    torch.nn.init.zeros_(head.weight)
    targets = torch.tensor([1.0, 1.0, 0.0, 0.0]).expand(1, 1, 2, 4)
    valid = torch.tensor([[[True, False]]])
    assert head.losses(torch.randn(1, 1, 2, 3), targets, valid, torch.tensor([0])).tolist() == [0.5]


def test_return_to_go_falls_by_the_rewards(spec: DataSpec) -> None:
    agent = DecisionTransformer(spec, **SIZE)
    agent.return_target[:] = 4500.0
    agent.return_scale[:] = 1000.0
    agent.reset(RolloutContext(np.array([1]), np.array([0])))
    for reward in (0.0, 10.0, 10.0, 10.0):
        agent.act(np.zeros((1, 4), np.float32), np.array([reward], np.float32))
    returns = agent._history.window(agent.window)[1][0]
    torch.testing.assert_close(returns, torch.tensor([4.5, 4.49, 4.48, 4.47]))


def test_what_is_left_of_the_target_stays_within_the_data(spec: DataSpec) -> None:
    quantiles = np.array(spec.return_quantiles)
    for shift, least in ((100 - quantiles.min(), 0.0), (0.0, quantiles[0, 0])):
        moved = dataclasses.replace(spec, return_quantiles=tuple(map(tuple, (quantiles + shift).tolist())))
        agent = DecisionTransformer(moved, **SIZE).eval()
        agent.reset(RolloutContext(np.array([0]), np.array([0])))
        for _ in range(3):
            agent.act(np.zeros((1, 4), np.float32), np.full(1, 1e4, np.float32))
        returns = agent._history.window(agent.window)[1] * agent.return_scale[0]
        np.testing.assert_allclose(returns, min(least, 0.0), atol=1e-3)


def test_one_forward_pass_per_step_for_the_whole_block(spec: DataSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = DecisionTransformer(spec, **SIZE).eval()
    passes = []
    forward = agent.backbone.forward
    monkeypatch.setattr(agent.backbone, "forward", lambda *a, **o: passes.append(a[0].shape) or forward(*a, **o))
    agent.reset(RolloutContext(np.array([0, 1, 2, 0]), np.arange(4)))
    for _ in range(9):
        agent.act(np.zeros((4, 4), np.float32), np.zeros(4, np.float32))
    assert len(passes) == 9 and {shape[0] for shape in passes} == {4}
    assert max(shape[1] for shape in passes) == 12, "two tokens for each of the last six steps"


def test_targets_come_from_the_data(spec: DataSpec) -> None:
    agent = DecisionTransformer(spec, **SIZE, target_quantile=0.5)
    np.testing.assert_allclose(agent.return_target, [row[10] for row in spec.return_quantiles], rtol=1e-6)
    np.testing.assert_allclose(agent.return_scale, [max(row[19], 1) for row in spec.return_quantiles], rtol=1e-6)


@pytest.mark.parametrize("context", [1, 2, 5])
def test_history_is_the_last_steps_however_long_the_episode(spec: DataSpec, context: int) -> None:
    agent = DecisionTransformer(spec, **{**SIZE, "context": context}, action_context="full")
    agent.reset(RolloutContext(np.array([0, 1]), np.arange(2)))
    actions, observations = [], []
    for step in range(23):
        row = np.full((2, 4), 0.01 * step, np.float32)
        observations.append(agent._observation_inputs(agent._to_tensor(row), agent._tasks))
        actions.append(torch.from_numpy(agent.act(row, np.zeros(2, np.float32))))
        found, _, past, timesteps = agent._history.window(agent.window)
        begin = max(0, step + 1 - context)
        torch.testing.assert_close(found, torch.stack(observations[begin:], 1))
        torch.testing.assert_close(past, torch.stack(actions[begin:], 1))
        assert timesteps[0].tolist() == list(range(begin, step + 1))


@pytest.mark.parametrize("context", [1, 2, 5, 6])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"action_context": "full"},
        {"action_context": "full", "return_conditioning": False, "time": "episode"},
        {"return_conditioning": False, "time": "none"},
        {"task_gain": True},
    ],
)
@pytest.mark.parametrize("kind", [DecisionTransformer, PromptDecisionTransformer])
def test_an_anchored_context_grows_and_is_halved(spec: DataSpec, kind: type, options: dict, context: int) -> None:
    """Each action is that of a whole pass over as many steps as the anchored context holds; K steps, at the most."""
    torch.manual_seed(0)
    size = {**SIZE, "context": context, **options}
    agent, exact = (kind(spec, **size).eval().requires_grad_(False) for _ in range(2))
    exact.load_state_dict(agent.state_dict())
    agent.reset(RolloutContext(np.array([0, 2]), np.arange(2), context="anchored"))
    exact.reset(RolloutContext(np.array([0, 2]), np.arange(2)))
    draw, lengths = np.random.default_rng(0), []
    for _ in range(3 * context + 2):
        seen, rewards = draw.normal(size=(2, 4)).astype(np.float32), draw.random(2).astype(np.float32)
        found = agent.act(seen, rewards)
        lengths.append(agent._length)
        exact.window = lengths[-1]
        np.testing.assert_allclose(found, exact.act(seen, rewards), atol=1e-5)
        agent.acted(-found)  # what was done may be something else
        exact.acted(-found)
    half = max(context // 2, 1)
    assert lengths[: context + 2] == [*range(1, context + 1), half, min(half + 1, context)][: context + 2]


def test_the_newest_token_alone_is_the_last_of_all() -> None:
    network = CausalTransformer(16, 3, 4, 0.1).eval().double()
    tokens = torch.randn(5, 7, 16).double()
    torch.testing.assert_close(network(tokens, last_only=True), network(tokens)[:, -1:])


def test_fully_padded_windows_give_no_nan(spec: DataSpec) -> None:
    agent = DecisionTransformer(spec, **SIZE).double()
    batch = random_batch()
    valid = torch.zeros_like(batch.valid)
    losses = agent(0, TaskBatch(**{**vars(batch), "valid": valid})).values
    losses.sum().backward()
    assert losses.tolist() == [0, 0, 0]
    assert all(torch.isfinite(value.grad).all() for value in agent.parameters() if value.grad is not None)


@pytest.mark.parametrize(
    "options", [{"width": 15}, {"context": 0}, {"layers": 0}, {"dropout": 1.5}, {"target_quantile": 2.0}]
)
def test_impossible_sizes_are_refused(spec: DataSpec, options: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))} is .*expected"):
        DecisionTransformer(spec, **{**SIZE, **options})
