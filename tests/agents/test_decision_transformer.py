import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import episode, write
from families import sampler_of

from mtorl import InputError
from mtorl.agents import DecisionTransformer, PromptDecisionTransformer
from mtorl.agents.heads import RegressionHead
from mtorl.agents.transformer import Block, CausalTransformer
from mtorl.datasets.episode import Demonstration
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec, describe_stores
from mtorl.datasets.store import Episode, EpisodeStore
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
    returns = agent.rollout.history.window(agent.window)[1][0]
    torch.testing.assert_close(returns, torch.tensor([4.5, 4.49, 4.48, 4.47]))


def test_what_is_left_of_the_target_stays_within_the_data(spec: DataSpec) -> None:
    quantiles = np.array(spec.return_quantiles)
    for shift, least in ((100 - quantiles.min(), 0.0), (0.0, quantiles[0, 0])):
        moved = dataclasses.replace(spec, return_quantiles=tuple(map(tuple, (quantiles + shift).tolist())))
        agent = DecisionTransformer(moved, **SIZE).eval()
        agent.reset(RolloutContext(np.array([0]), np.array([0])))
        for _ in range(3):
            agent.act(np.zeros((1, 4), np.float32), np.full(1, 1e4, np.float32))
        returns = agent.rollout.history.window(agent.window)[1] * agent.return_scale[0]
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


def test_where_no_reward_is_negative_returns_are_divided_by_their_quantile(spec: DataSpec, store: EpisodeStore) -> None:
    agent = DecisionTransformer(spec, **SIZE)
    for _ in range(2):
        assert torch.equal(agent.return_scale, torch.from_numpy(spec.return_quantile(0.95)))
        assert torch.equal(agent.return_most, torch.from_numpy(spec.return_quantile(1.0)))
        assert not agent.return_least.any()
        agent.remember([store])  # knows no more than returns say


@pytest.mark.parametrize(
    ("episodes", "expected"),
    [
        ([[0.0, 0.0]], (1, 0, 0)),  # nothing to tell apart
        ([[0.0, 3.0]], (3, 0, 3)),  # one episode
        ([[2.0, 3.0]] * 4, (5, 0, 5)),  # all alike
        ([[-2.0, -3.0]] * 4, (5, -5, 0)),
        ([[-40.0, -60.0, 100.0]] * 3, (100, 0, 100)),  # returns are zero, returns-to-go are not
        ([[40.0, 60.0, -100.0]] * 3, (100, -100, 0)),
        ([[-30.0], [70.0]] * 20, (100, -30, 70)),
        ([[1.0]] * 39 + [[1e6]], (1, 0, 1e6)),  # one odd episode does not decide how the others look
        ([[-1e-30], [-2e-30]] * 20, (2e-30, -2e-30, 0)),
    ],
)
def test_spread_of_returns_to_go(
    episodes: list[list[float]], expected: tuple[float, float, float], tmp_path: Path
) -> None:
    def recorded(rewards: list[float]) -> Episode:
        base = episode(length=len(rewards))
        return dataclasses.replace(base, rewards=np.array(rewards, np.float32), success=base.truncated)

    store = write(tmp_path / "d", [recorded(rewards) for rewards in episodes], ("a",))
    agent = DecisionTransformer(describe_stores([store]), **SIZE)
    agent.remember([store])
    found = [float(it) for it in (agent.return_scale, agent.return_least, agent.return_most)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("asked", [-400.0, 0.0, 20.0, -2000.0])
def test_targets_are_not_clipped_and_what_is_left_stays_within_the_data(spec: DataSpec, asked: float) -> None:
    """Recorded are returns from -1000 to -500; it may be asked for more than all of these, or for less."""
    quantiles = np.linspace(-1000, -500, 21)
    negative = dataclasses.replace(spec, return_quantiles=(tuple(quantiles.tolist()),) * 3)
    agent = DecisionTransformer(negative, **SIZE).eval()
    agent.return_target[:] = asked
    for reward, last in ((-1e4, max(asked, 0.0)), (1e4, min(asked, -1000.0))):
        agent.reset(RolloutContext(np.array([0]), np.array([0])))
        for earned in (0.0, reward):
            agent.act(np.zeros((1, 4), np.float32), np.full(1, earned, np.float32))
        returns = agent.rollout.history.window(agent.window)[1][0] * agent.return_scale[0]
        np.testing.assert_allclose(returns, [asked, last], rtol=1e-5)


def test_checkpoints_made_before_there_was_a_limit_above_act_as_they_did(spec: DataSpec) -> None:
    agent = DecisionTransformer(spec, **SIZE, task_identity="none").eval()
    state = agent.state_dict()
    most = state.pop("return_most")
    state["return_scale"] = torch.ones(3)
    agent.load_state_dict({"head.weight": agent.head.weight.detach()}, strict=False)
    assert torch.equal(agent.return_most, most), "a task's parameters alone are no checkpoint"
    agent.load_state_dict(state)
    shown = Demonstration(np.zeros((2, 4), np.float32), np.zeros((2, 2), np.float32), np.full(2, -3.0, np.float32))
    for context, first in (
        (RolloutContext(np.array([0]), np.array([0])), float(agent.return_target[0])),
        (RolloutContext(None, np.array([0]), demonstration=shown), -6.0),
    ):
        agent.reset(context)
        for earned in (0.0, -100.0):
            agent.act(np.zeros((1, 4), np.float32), np.full(1, earned, np.float32))
        np.testing.assert_allclose(agent.rollout.history.window(2)[1][0], [first, first + 100], rtol=1e-6)
    del state["return_least"]
    with pytest.raises(RuntimeError, match="return_least"):
        agent.load_state_dict(state)


@pytest.mark.parametrize("context", [1, 2, 5])
def test_history_is_the_last_steps_however_long_the_episode(spec: DataSpec, context: int) -> None:
    agent = DecisionTransformer(spec, **{**SIZE, "context": context}, action_context="full")
    agent.reset(RolloutContext(np.array([0, 1]), np.arange(2)))
    actions, observations = [], []
    for step in range(23):
        row = np.full((2, 4), 0.01 * step, np.float32)
        observations.append(agent._observation_inputs(agent._to_tensor(row), agent.rollout.tasks))
        actions.append(torch.from_numpy(agent.act(row, np.zeros(2, np.float32))))
        found, _, past, timesteps = agent.rollout.history.window(agent.window)
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
        lengths.append(agent.rollout.length)
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


ROUTED = [
    (DecisionTransformer, {"router_context": "task"}),
    (DecisionTransformer, {"router_context": "token"}),
    (DecisionTransformer, {"router_context": "token", "task_identity": "none", "action_context": "full"}),
    (DecisionTransformer, {"router_context": "task", "task_gain": True}),
    (PromptDecisionTransformer, {"router_context": "prompt"}),
    (PromptDecisionTransformer, {"router_context": "token", "task_identity": "onehot", "task_gain": True}),
]


def routed(spec: DataSpec, kind: type, options: dict, **more: object) -> DecisionTransformer:
    torch.manual_seed(0)
    agent = kind(spec, **{**SIZE, "ffn": "soft_modules", "modules": 4, **options, **more})
    for parameter in agent.parameters():  # away from the even mixtures of the beginning
        parameter.data += 0.3 * torch.randn_like(parameter)
    return agent.double().eval()


def batch_of(agent: DecisionTransformer, store: EpisodeStore) -> TaskBatch:
    return sampler_of(agent, store, agent.spec).draw().to("cpu", torch.float64)


@pytest.mark.parametrize(("kind", "options"), ROUTED)
def test_soft_modules_are_what_they_say(spec: DataSpec, store: EpisodeStore, kind: type, options: dict) -> None:
    """Each block's feed-forward network written out: a sum over modules, each with its share."""
    agent = routed(spec, kind, options)
    batch = batch_of(agent, store)
    tokens, prompt, rows = agent._inputs(batch)
    routes = agent._routes(tokens, rows, prompt)
    gains = agent.gains(rows)
    values = tokens
    for number, (block, route) in enumerate(zip(agent.backbone.blocks, routes, strict=True)):
        assert isinstance(block, Block)
        torch.testing.assert_close(route.sum(-1), torch.ones_like(route.sum(-1)))
        values = values + block._attend(block.norm_attention(values), False, None)[0]
        seen, share, total = block.norm_feed_forward(values), route if route.ndim == 3 else route[:, None], 0
        for module in range(4):
            units = slice(16 * module, 16 * module + 16)
            hidden = torch.nn.functional.linear(seen, block.expand.weight[units], block.expand.bias[units])
            hidden = torch.relu(hidden * (gains[number][:, None, units] if gains else 1))
            total = total + share[..., module, None] * torch.nn.functional.linear(
                hidden, block.contract.weight[:, units]
            )
        values = values + total + block.contract.bias
    expected = agent.backbone.norm(values)
    torch.testing.assert_close(
        agent.backbone(tokens, feed_forwards=agent._feed_forwards(tokens, rows, prompt)), expected
    )
    found = agent.routing(batch)
    assert [tuple(it.shape) for it in found] == [(3, 4)] * 2 and routes[0].std(0).max() > 0.01


@pytest.mark.parametrize(("kind", "options"), ROUTED)
def test_one_module_is_the_dense_block(spec: DataSpec, store: EpisodeStore, kind: type, options: dict) -> None:
    one = routed(spec, kind, options, modules=1)
    plain = {name: value for name, value in options.items() if name != "router_context"}
    dense = kind(spec, **{**SIZE, **plain}).double().eval()
    dense.load_state_dict({name: value for name, value in one.state_dict().items() if not name.startswith("router")})
    batch = batch_of(one, store)
    torch.testing.assert_close(one(0, batch).values, dense(0, batch).values)
    count = sum(value.numel() for value in one.backbone.parameters())
    four = routed(spec, kind, options)
    assert count == sum(value.numel() for value in four.backbone.parameters()), "as many parameters as a dense block"
    masked = {name for name, on in zip(four.phases[0].space.names, four.phases[0].space.maskable, strict=True) if on}
    assert masked and not any("router" in name for name in masked)
    assert any(name.startswith("router") for name in four.phases[0].space.names)


@pytest.mark.parametrize("context", ["token", "task"])
@pytest.mark.parametrize("anchored", ["exact", "anchored"])
def test_routed_transformers_act_as_they_are_trained(
    spec: DataSpec, store: EpisodeStore, context: str, anchored: str
) -> None:
    for kind in (DecisionTransformer, PromptDecisionTransformer):
        agent = routed(spec, kind, {"router_context": context, "task_identity": "onehot"}).float()
        agent.remember([store])
        agent.reset(RolloutContext(np.array([0, 2]), np.arange(2), context=anchored))  # type: ignore[arg-type]
        draw = np.random.default_rng(0)
        for step in range(9):
            found = agent.act(draw.normal(size=(2, 4)).astype(np.float32), np.zeros(2, np.float32))
            window = agent.rollout.history.window(agent.rollout.length if anchored == "anchored" else agent.window)
            tokens, prompt = agent._asking(window), agent.rollout.prompt
            whole = tokens if prompt is None else torch.cat([prompt, tokens], 1)
            feed_forwards = agent._feed_forwards(whole, agent.rollout.tasks, prompt)
            expected = agent.head.act(agent.backbone(whole, feed_forwards=feed_forwards)[:, -1], agent.rollout.tasks)
            np.testing.assert_allclose(found, expected.detach(), atol=1e-5, err_msg=f"step {step}")


def test_routing_by_tokens_does_not_look_ahead(spec: DataSpec) -> None:
    agent = routed(spec, DecisionTransformer, {"router_context": "token", "action_context": "full"})
    batch = random_batch()
    before = agent(0, batch).features
    later = {name: value.clone() for name, value in vars(batch).items() if value is not None}
    later["observations"][:, :, 4:] += 1
    later["actions"][:, :, 3:] += 1
    after = agent(0, TaskBatch(**later)).features
    assert before is not None and after is not None
    torch.testing.assert_close(after[:, :, :4], before[:, :, :4])
    assert (after[:, :, 4:] - before[:, :, 4:]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ffn": "sparse"}, "ffn is 'sparse'"),
        ({"modules": 7}, r"modules is 7; expected a divisor of 4 \* width = 64"),
        ({"modules": 0}, "modules is 0"),
        ({"router_context": "prompt"}, "router_context is 'prompt'; expected one of task, token"),
        ({"task_identity": "none"}, "router_context=task needs a vector for each task"),
    ],
)
def test_wrong_modules_are_refused(options: dict, message: str, spec: DataSpec) -> None:
    with pytest.raises(InputError, match=message):
        DecisionTransformer(spec, **{**SIZE, "ffn": "soft_modules", **options})
