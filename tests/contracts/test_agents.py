"""What every agent must do, for every choice of task identity and heads."""

import copy
import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from families import AGENT_VARIANTS, SMALL_AGENTS, concrete, sampler_of

from mtorl import InputError
from mtorl.agents import Agent, PromptDecisionTransformer
from mtorl.agents.actor_critic import ActorCritic
from mtorl.agents.heads import Head
from mtorl.datasets.episode import Demonstration
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext
from mtorl.trainers.seeding import isolated


def test_every_agent_is_under_this_contract() -> None:
    kinds = [kind for kind in concrete(Agent)[1:] if kind.__module__.startswith("mtorl.")]
    ours = {kind for kind in kinds if not inspect.isabstract(kind)}
    assert ours == set(SMALL_AGENTS)


@pytest.fixture(params=AGENT_VARIANTS)
def agent(request: pytest.FixtureRequest, spec: DataSpec) -> Agent:
    kind, options = request.param
    with isolated(0, "init"):
        return kind(spec, **options).double().eval()


@pytest.fixture
def batch(agent: Agent, store: EpisodeStore, spec: DataSpec) -> TaskBatch:
    return sampler_of(agent, store, spec).draw().to("cpu", torch.float64)


@pytest.fixture(autouse=True)
def without_noise(even_noise: None) -> None:
    """Agents that draw noise draw the same for all tasks."""


def losses(agent: Agent, batch: TaskBatch) -> torch.Tensor:
    """Of all phases."""
    return torch.stack([agent(phase, batch).values for phase in range(len(agent.phases))], -1)


def test_one_finite_loss_per_task(agent: Agent, batch: TaskBatch) -> None:
    for phase in range(len(agent.phases)):
        values = agent(phase, batch).values
        assert values.shape == (3,) and torch.isfinite(values).all() and values.any()
    found = agent(0, batch)
    if isinstance(agent, ActorCritic):
        assert [phase.name for phase in agent.phases][-2:] == ["critic", "actor"]
        return
    assert found.features is not None and found.targets is not None
    assert found.features.shape[:3] == batch.valid.shape
    assert found.targets.shape == batch.actions.shape


def test_tasks_do_not_see_each_other(agent: Agent, batch: TaskBatch) -> None:
    together = losses(agent, batch)
    for order in ([2, 0, 1], [1], [0, 2]):
        torch.testing.assert_close(losses(agent, batch.select(order)), together[order], rtol=1e-9, atol=1e-12)


def test_padding_has_no_influence(agent: Agent, batch: TaskBatch) -> None:
    valid = batch.valid.clone()
    valid[:, :, (agent.window + 1) // 2 :] = False
    if agent.window == 1:
        valid[:, 0] = False
    expected = losses(agent, TaskBatch(**{**vars(batch), "valid": valid}))
    noise = {
        name: torch.where(valid.view(*valid.shape, *[1] * (value.ndim - 3)), value, torch.randn_like(value))
        for name, value in vars(batch).items()
        if torch.is_tensor(value) and value.is_floating_point()
    }
    found = losses(agent, TaskBatch(**{**vars(batch), **noise, "valid": valid}))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_task_without_valid_steps_has_loss_zero_not_nan(agent: Agent, batch: TaskBatch) -> None:
    valid = batch.valid.clone()
    valid[1] = False
    found = losses(agent, TaskBatch(**{**vars(batch), "valid": valid}))
    assert not found[1].any() and torch.isfinite(found).all()


def test_private_parameters_move_only_with_their_task(agent: Agent, batch: TaskBatch) -> None:
    for phase in range(len(agent.phases)):
        agent(phase, batch.select([1])).values.sum().backward()
    row_of = agent.row_of()
    for row in agent.task_rows():
        mine = int(row_of[row][1]) if row in row_of else 1
        others = [place for place in range(len(row)) if place != mine]
        assert row.grad is not None and row.grad[mine].any() and not row.grad[others].any()
    names = {name: value for name, value in agent.named_parameters() if value.requires_grad}
    private = {id(row) for row in agent.task_rows()}
    shared = {name for phase in agent.phases for name in phase.space.names}
    assert {name for name, value in names.items() if id(value) not in private} == shared
    for space in (phase.space for phase in agent.phases):
        assert len(space) == sum(value.numel() for name, value in names.items() if name in space.names)


def test_flatten_and_unflatten_are_inverse(agent: Agent) -> None:
    space = agent.phases[0].space
    parameters = space.select(agent)
    flat = space.flatten(parameters)
    assert flat.shape == (len(space),)
    for name, value in space.unflatten(flat).items():
        assert torch.equal(value, parameters[name])
    assert any(space.maskable) and not all(space.maskable)
    for name, maskable in zip(space.names, space.maskable, strict=True):
        assert not maskable or parameters[name].ndim == 2


def test_losses_can_be_computed_at_other_parameters(agent: Agent, batch: TaskBatch) -> None:
    other = {name: value.detach() * 0.5 for name, value in agent.phases[0].space.select(agent).items()}
    found = torch.func.functional_call(agent, other, (0, batch)).values
    with torch.no_grad():
        agent.load_state_dict(other, strict=False)
    torch.testing.assert_close(found, losses(agent, batch)[:, 0], rtol=1e-12, atol=0)


def test_a_copy_is_a_copy(agent: Agent, batch: TaskBatch) -> None:
    """Policies are played as copies with other weights: nothing in a copy may lead back."""
    before, other = losses(agent, batch), copy.deepcopy(agent)
    with torch.no_grad():
        for value in other.parameters():
            value.mul_(0.5)
    assert not torch.isclose(losses(other, batch), before).all(0).any()
    assert torch.equal(losses(agent, batch), before)


def test_acting_is_deterministic_and_forgets(agent: Agent, spec: DataSpec) -> None:
    draw = np.random.default_rng(0)
    observations = draw.normal(size=(15, 4, 4)).astype(np.float32)
    rewards = draw.random((15, 4)).astype(np.float32)

    def play() -> np.ndarray:
        agent.reset(RolloutContext(np.array([0, 1, 2, 1]), np.arange(4)))
        return np.stack([agent.act(*step) for step in zip(observations, rewards, strict=True)])

    first = play()
    assert first.shape == (15, 4, 2) and first.dtype == np.float32 and np.abs(first).max() <= 1
    np.testing.assert_array_equal(play(), first)


def test_hidden_tasks(agent: Agent) -> None:
    context = RolloutContext(None, np.arange(2))
    if agent.needs_task:
        with pytest.raises(InputError, match="was trained with the task's identity"):
            agent.reset(context)
        return
    if agent.needs_demonstration:
        with pytest.raises(InputError, match="unless it is shown an episode"):
            agent.reset(context)
        draw = np.random.default_rng(0)
        columns = (draw.normal(size=(9, size)).astype(np.float32) for size in (4, 2))
        context = replace(context, demonstration=Demonstration(*columns, draw.random(9).astype(np.float32)))
    agent.reset(context)
    action = agent.act(np.zeros((2, 4), np.float32), np.zeros(2, np.float32))
    assert action.shape == (2, 2) and np.isfinite(action).all()
    agent.acted(-action)
    assert np.isfinite(agent.act(np.ones((2, 4), np.float32), np.zeros(2, np.float32))).all()


def test_what_is_learned_is_what_is_played(agent: Agent, batch: TaskBatch, store: EpisodeStore) -> None:
    """Following a recorded window step by step gives the actions that the loss sees."""
    agent.remember([store])
    if isinstance(agent, PromptDecisionTransformer):  # every window gets the prompt that is acted with
        best = agent.best.map(lambda value: value[batch.task_ids, None].expand(-1, 5, *value.shape[1:]))
        batch = replace(batch, prompt=best)
    sure = batch.valid[:, 0].all(-1)
    features = agent(0, batch).features
    if isinstance(agent, ActorCritic):
        features = agent._features(batch.observations, batch.task_ids)
    assert features is not None
    for task in sure.nonzero().flatten().tolist():
        flat = features[task, 0]
        expected = agent.head.act(flat, torch.full((len(flat),), task))[-1]  # type: ignore[operator, union-attr]
        agent.reset(RolloutContext(np.array([task]), np.zeros(1, dtype=np.int64)))
        history = getattr(agent.rollout, "history", None)
        if history is not None:  # the rollout's own target and actions differ from the recorded ones
            history._left[:] = batch.returns_to_go[task, 0, 0] + 0
            history._step = int(batch.timesteps[task, 0, 0])
        for step in range(agent.window):
            reward = batch.rewards[task, 0, step - 1] if step else torch.zeros(())
            found = agent.act(batch.observations[task, 0, step][None].float().numpy(), reward[None].float().numpy())
            if history is not None:
                history.acted(batch.actions[task, 0, step][None])
        np.testing.assert_allclose(found[0], expected.detach().numpy(), atol=2e-4)
    assert sure.any()


MORE = 5
"""Further action dimensions; no other axis of a small agent has as many as these and the store's two."""


@pytest.mark.parametrize("variant", AGENT_VARIANTS)
def test_padded_action_dimensions_change_no_loss(variant: tuple, store: EpisodeStore, spec: DataSpec) -> None:
    """Beside a task with more of them, the losses of the others are those of an agent without."""
    kind, options = variant
    observed, acted = spec.observation_dim, spec.action_dim
    sizes = tuple((observed, acted + more) for more in (0, MORE, 0))
    with isolated(0, "init"):
        narrow = kind(spec, **options).double().eval()
        wide = kind(replace(spec, action_dim=acted + MORE, own_dimensions=sizes), **options).double().eval()
        with torch.no_grad():
            for parameter in wide.parameters():
                parameter.add_(torch.randn(parameter.shape, dtype=torch.float64), alpha=0.05)
    narrow.load_state_dict({name: _cut(value, narrow, name) for name, value in wide.state_dict().items()})
    batch = sampler_of(narrow, store, spec).draw().to("cpu", torch.float64)
    found = losses(wide, _with_padding(batch))[[0, 2]]
    torch.testing.assert_close(found, losses(narrow, batch)[[0, 2]])
    found.sum().backward()
    heads = [part for part in wide.modules() if isinstance(part, Head)]
    lasts = {it for head in heads for it in head.parameters() if it.requires_grad and it.shape[-1] == acted + MORE}
    assert lasts
    for parameter in lasts:
        assert parameter.grad is not None and not parameter.grad[..., acted:].any(), "something learned from padding"


def _cut(value: torch.Tensor, narrow: Agent, name: str) -> torch.Tensor:
    """A wide agent's tensor without what reads or makes the further action dimensions."""
    shape = narrow.state_dict()[name].shape
    for axis, (size, wanted) in enumerate(zip(value.shape, shape, strict=True)):
        if size != wanted:
            place = wanted if wanted == narrow.spec.action_dim else narrow.spec.observation_dim + narrow.spec.action_dim
            kept = [*range(place), *range(place + MORE, size)]
            value = value.index_select(axis, torch.tensor(kept))
    return value


def _with_padding(batch: TaskBatch) -> TaskBatch:
    """The same steps with zeros in the further dimensions of the first and last task; the other one moves in them."""

    def wider(actions: torch.Tensor) -> torch.Tensor:
        more = actions.new_zeros(*actions.shape[:-1], MORE)
        more[1] = 0.5
        return torch.cat([actions, more], -1)

    prompt = batch.prompt and replace(batch.prompt, actions=wider(batch.prompt.actions))
    return replace(batch, actions=wider(batch.actions), prompt=prompt)
