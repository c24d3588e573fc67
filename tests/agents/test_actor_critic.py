import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from families import NETWORK, sampler_of

from mtorl import InputError
from mtorl.agents import CQL, IQL, TD3BC
from mtorl.agents.actor_critic import ActorCritic, Critic
from mtorl.agents.cql import conservative_gap
from mtorl.agents.iql import expectile_loss
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec, describe_stores
from mtorl.datasets.store import Episode, EpisodeStore
from mtorl.datasets.writer import StoreWriter
from mtorl.envs.protocol import Protocol
from mtorl.reports.masks import export_masks
from mtorl.runs.training import train
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers import AgreementKMeans
from mtorl.trainers.logs import read_log
from mtorl.trainers.sharing import RandomMasks

KINDS = [IQL, TD3BC, CQL]
PUBLISHED = {"conservative_weight": 1.0, "temperature": 1.0}
SMALL = {"class_path": "MLPBackbone", "init_args": {"hidden": [16, 16]}}


def build(kind: type, spec: DataSpec, **options: object) -> ActorCritic:
    torch.manual_seed(0)
    return kind(spec, actor=NETWORK, critic=NETWORK, **options).double()


def batch_of(agent: ActorCritic, store: EpisodeStore) -> TaskBatch:
    return sampler_of(agent, store, agent.spec, windows=16).draw().to("cpu", torch.float64)


def test_expectiles() -> None:
    ahead = torch.tensor([1.0, -1.0, 2.0])
    torch.testing.assert_close(expectile_loss(ahead, 0.7), torch.tensor([0.7, 0.3, 2.8]))
    torch.testing.assert_close(expectile_loss(ahead, 0.5), 0.5 * ahead.square())
    draws = torch.randn(20_000, generator=torch.Generator().manual_seed(0)).double()
    grid = torch.linspace(-2, 2, 801).double()
    for expectile in (0.5, 0.9):
        losses = torch.stack([expectile_loss(draws - value, expectile).mean() for value in grid])
        best = float(grid[losses.argmin()])
        above, below = (draws - best).clamp(min=0).mean(), (best - draws).clamp(min=0).mean()
        assert float(expectile * above) == pytest.approx(float((1 - expectile) * below), rel=0.05), (
            "the definition of an expectile"
        )
        assert (best > 0.5) == (expectile == 0.9)


@pytest.mark.parametrize("beta", [0.0, 3.0])
def test_iql_imitates_good_actions_more(spec: DataSpec, store: EpisodeStore, beta: float) -> None:
    agent = build(IQL, spec, advantage_weight=beta)
    assert isinstance(agent, IQL)
    batch = batch_of(agent, store)
    observed, ids = agent.observed(batch), batch.task_ids
    values = torch.stack(
        [critic(torch.cat([observed, batch.actions], -1), agent.code(ids), ids) for critic in agent.target_critics]
    ).amin(0)
    advantage = values - agent.value(observed, agent.code(ids), ids)
    features = agent.backbone(observed, agent.encoder(ids))
    likelihood = agent.head.log_likelihood(features, batch.actions, ids)  # type: ignore[operator]
    expected = -(torch.exp(beta * advantage).clamp(max=100) * likelihood).mean((1, 2))
    torch.testing.assert_close(agent(2, batch).values, expected)


def test_td3_bc_does_not_depend_on_the_scale_of_values(spec: DataSpec, store: EpisodeStore) -> None:
    agent = build(TD3BC, spec)
    batch = batch_of(agent, store)
    before = agent(1, batch).values
    with torch.no_grad():
        for value in (agent.critics[0].head.weight, agent.critics[0].head.bias):  # type: ignore[union-attr]
            value.mul_(10)  # type: ignore[operator, union-attr]
    torch.testing.assert_close(agent(1, batch).values, before)
    imitation = build(TD3BC, spec, critic_weight=0.0)
    means = imitation.mean_actions(imitation.observed(batch), batch.task_ids)
    torch.testing.assert_close(imitation(1, batch).values, (means - batch.actions).square().mean((1, 2, 3)))


class Hill(torch.nn.Module):
    """Values actions by how near they are to one."""

    def forward(self, inputs: torch.Tensor, code: torch.Tensor, task_ids: torch.Tensor) -> torch.Tensor:
        return -(inputs[..., -2:] - torch.tensor([0.6, -0.3]).double()).square().sum(-1) - 1


@pytest.mark.parametrize("kind", [TD3BC, CQL])
def test_policies_climb_their_critics(kind: type, spec: DataSpec, store: EpisodeStore) -> None:
    more = {"imitation_steps": 0} if kind is CQL else {"critic_weight": 100.0}
    agent = build(kind, spec, **more)
    agent.critics = torch.nn.ModuleList([Hill(), Hill()])
    batch = batch_of(agent, store)
    optimizer = torch.optim.Adam(agent.phases[-1].module.parameters(), 0.01)
    torch.manual_seed(0)
    for _ in range(150):
        optimizer.zero_grad()
        agent(len(agent.phases) - 1, batch).values.sum().backward()
        optimizer.step()
    means = agent.mean_actions(agent.observed(batch), batch.task_ids).mean((0, 1, 2))
    torch.testing.assert_close(means, torch.tensor([0.6, -0.3]).double(), rtol=0, atol=0.1)


def test_cql_imitates_first(spec: DataSpec, store: EpisodeStore) -> None:
    agent = build(CQL, spec, imitation_steps=2)
    batch = batch_of(agent, store)
    actor = agent.phases[1]
    errors = (agent.mean_actions(agent.observed(batch), batch.task_ids) - batch.actions).square().mean((1, 2, 3))
    for _ in range(2):
        torch.testing.assert_close(actor.losses(batch).values, errors)
        actor.after_step()
    assert not torch.isclose(actor.losses(batch).values, errors).any()


def test_conservative_gaps() -> None:
    volume = 2 * math.log(2)
    uniform = torch.full((7, 3), -volume)
    gap = conservative_gap(torch.full((7, 3), 4.0), uniform, torch.full((3,), 4.0))
    torch.testing.assert_close(gap, torch.full((3,), volume))  # of a constant: the logarithm of the volume
    values, recorded = torch.randn(7, 3), torch.randn(3)
    before = conservative_gap(values, uniform, recorded)
    torch.testing.assert_close(conservative_gap(values + 5, uniform, recorded + 5), before)
    smaller = conservative_gap(values / 10, uniform, recorded / 10, 0.1)
    torch.testing.assert_close(smaller, before / 10)  # of rewards a tenth as large, with a tenth of the temperature
    torch.testing.assert_close(
        conservative_gap(values, uniform, recorded, 1e-4), values.amax(0) - recorded, atol=1e-2, rtol=0
    )


def test_the_volume_of_all_actions(spec: DataSpec, store: EpisodeStore) -> None:
    """Densities of the policy's actions are right: of a constant value the gap is the logarithm of the volume."""
    agent = build(CQL, spec, samples=400)
    assert isinstance(agent, CQL)
    with torch.no_grad():
        agent.head.bias.fill_(0.6)
        agent.head.weight.zero_()
        agent.head.spread.fill_(0.84)  # a deviation of 0.6
    batch = batch_of(agent, store)
    torch.manual_seed(0)
    observed = agent.observed(batch)
    with torch.no_grad():
        actions, densities = agent._others(observed, agent.observed(batch, following=True), batch.task_ids)
    found = densities.unflatten(1, (1200, -1)).movedim(1, 0)
    assert actions.abs().max() < 1
    for part in (slice(None), slice(400, None)):
        volume = conservative_gap(torch.zeros_like(found[part]), found[part], torch.zeros(found.shape[1:]))
        np.testing.assert_allclose(volume.mean(), 2 * math.log(2), atol=0.15)
    drawn, density = agent._draw(agent.observed(batch), batch.task_ids, 1)
    squashed = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(0.6, agent.head.deviations(batch.task_ids)),
        torch.distributions.TanhTransform(),
    )
    torch.testing.assert_close(density, squashed.log_prob(drawn).sum(-1), rtol=1e-6, atol=1e-6)


def test_a_masked_critic_has_a_masked_target(spec: DataSpec, store: EpisodeStore, even_noise: None) -> None:
    """Each loss is that of the task's own networks, all of them: written out with the masks put into the weights."""
    for kind in KINDS:
        agent = build(kind, spec)
        members = []
        for phase in agent.phases:
            member = RandomMasks(sparsity=0.5)
            member.init(phase.space, 3, torch.Generator().manual_seed(len(members)))
            members.append(member)
        batch = batch_of(agent, store)
        alone = copy.deepcopy(agent)
        for number, phase in enumerate(agent.phases):
            for execution in ("loop", "vmap"):
                others = [(it.space, its) for it, its in zip(agent.phases, members, strict=True) if it is not phase]
                functions = PhaseFunctions(agent, number, execution, companions=others)  # type: ignore[arg-type]
                found = functions.gradients(batch, members[number])[0].losses
                for task in range(3):
                    alone.load_state_dict(agent.state_dict())
                    for other, member in zip(agent.phases, members, strict=True):
                        masked = member.effective(other.space.select(agent), task)
                        alone.load_state_dict(masked, strict=False)
                    state = alone.state_dict()  # targets are copies as yet
                    for target, source in alone.shadows.items():
                        state[target] = state[source]
                    alone.load_state_dict(state)
                    expected = alone(number, batch.select([task])).values
                    torch.testing.assert_close(found[task : task + 1], expected.detach(), rtol=1e-9, atol=1e-12)


def test_a_delayed_policy_sees_all_tasks_and_its_masks_move(train_options: dict, tmp_path: Path) -> None:
    options = {key: value for key, value in train_options.items() if key not in ("agent.hidden", "schedule", "out")}
    options |= {"agent": {"class_path": "TD3BC", "init_args": {"actor": SMALL, "critic": SMALL}}}
    options |= {"schedule": {"steps": 24, "log_every": 24, "evaluate_every": 0, "monitor_every": 0}}
    turns = {"tasks": ["towards-0", "away-0"], "tasks_per_batch": 1, "order": "round_robin"}
    run = train(**options, **turns, out=str(tmp_path / "turns"))
    (entry,) = [row for row in read_log(run.folder) if row["kind"] == "training"]
    assert {"actor/loss/towards-0", "actor/loss/away-0", "critic/loss/away-0"} <= set(entry)
    masks = {"sharing": "HarmonyMasks", "sharing.interval": 8, "sharing.schedule": "constant"}
    run = train(**options, **masks, out=str(tmp_path / "masks"))
    moves = [(row["phase"], row["swapped"] > 0) for row in read_log(run.folder) if row["kind"] == "sharing"]
    assert sorted(moves) == [("actor", True)] * 3 + [("critic", True)] * 3
    masked = run.sharing()
    export = export_masks(run, tmp_path / "m.safetensors")
    frozen = train(
        **options, **{"sharing": "FrozenMasks", "sharing.file": str(export)}, out=str(tmp_path / "frozen")
    ).sharing()
    for name, member in masked.items():
        assert torch.equal(member.masks, frozen[name].masks), name  # type: ignore[union-attr]
    groupings = [run.group(AgreementKMeans(batches=2), 2) for _ in range(2)]
    assert groupings[0] == groupings[1]


def test_cql_values_recorded_actions_higher(spec: DataSpec, store: EpisodeStore) -> None:
    agent = build(CQL, spec, conservative_weight=5.0, temperature=1.0)
    batch = batch_of(agent, store)
    optimizer = torch.optim.Adam(agent.critics.parameters(), 0.003)

    def lead() -> float:
        with torch.no_grad():
            observed, ids = agent.observed(batch), batch.task_ids
            others = 2 * torch.rand(batch.actions.shape, generator=torch.Generator().manual_seed(1)).double() - 1
            each = [agent.values_of(agent.critics, observed, it, ids).mean() for it in (batch.actions, others)]
            return float(each[0] - each[1])

    before = lead()
    torch.manual_seed(0)
    for _ in range(60):
        optimizer.zero_grad()
        agent(0, batch).values.sum().backward()
        optimizer.step()
    assert lead() > before + 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_only_an_environments_own_end_counts(spec: DataSpec, store: EpisodeStore, kind: type) -> None:
    agent = build(kind, spec, discount=0.9)
    agent.remember([store])
    batch = batch_of(agent, store)
    assert batch.terminated is not None and not batch.terminated.any()
    following = torch.full_like(batch.rewards, 7.0)
    scaled = batch.rewards / agent.reward_scale[batch.task_ids].view(-1, 1, 1)
    assert float(scaled.max()) <= 1 and (agent.reward_scale > 0).all()
    torch.testing.assert_close(agent.target(batch, following), scaled + 0.9 * 7)
    over = TaskBatch(**{**vars(batch), "terminated": torch.ones_like(batch.valid)})
    torch.testing.assert_close(agent.target(over, following), scaled)


@pytest.mark.parametrize("kind", KINDS)
def test_targets_follow_slowly(spec: DataSpec, store: EpisodeStore, kind: type) -> None:
    agent = build(kind, spec, target_rate=0.25)
    old = {name: value.clone() for name, value in agent.target_critics.named_parameters()}
    with torch.no_grad():
        for value in agent.critics.parameters():
            value.add_(1.0)
    next(phase for phase in agent.phases if phase.name == ("critic" if kind is IQL else "actor")).after_step()
    for name, value in agent.target_critics.named_parameters():
        torch.testing.assert_close(value, old[name] + 0.25)
    assert not any(value.requires_grad for value in agent.target_critics.parameters())


def chain(path: Path, length: int = 6) -> EpisodeStore:
    """Two tasks on a line: the reward comes with the last step; in the second task it is ten times as large.

    Whatever is done moves on by one, so that all actions of a place are worth the same.
    """
    draw, episodes = np.random.default_rng(0), []
    for number in range(24):
        for task, reward in (("a", 1.0), ("b", 10.0)):
            positions = np.linspace(-1, 1, length + 1, dtype=np.float32)[:, None]
            flags, last = np.zeros(length, bool), np.arange(length) == length - 1
            rewards = np.where(last, reward, 0).astype(np.float32)
            actions = draw.uniform(-1, 1, (length, 1)).astype(np.float32)
            episodes.append(
                Episode(task, positions.repeat(2, 1), actions, rewards, last, last, flags, goal=number, seed=number)
            )
    suite = {"class_path": "some.Suite", "init_args": {"tasks": ["a", "b"]}}
    writer = StoreWriter(path, suite, ("a", "b"), (2, 1), length, {"simulator": "1"}, {"recipe": "test"})
    writer.write(episodes)
    return EpisodeStore(path)


def learn(agent: ActorCritic, store: EpisodeStore, steps: int) -> None:
    agent.remember([store])
    sampler = sampler_of(agent, store, agent.spec, windows=32)
    parts = [torch.optim.Adam(phase.module.parameters(), 0.003) for phase in agent.phases]
    for step in range(steps):
        batch = sampler.draw().to("cpu", torch.float64)
        for number, (phase, optimizer) in enumerate(zip(agent.phases, parts, strict=True)):
            if step % phase.every == 0:
                optimizer.zero_grad()
                agent(number, batch).values.sum().backward()
                optimizer.step()
                phase.after_step()


PLACES = torch.linspace(-1, 1, 7)[:6].double().view(1, 6, 1, 1).repeat(2, 1, 1, 2)
WORTH = (0.8 ** torch.arange(5, -1, -1).double()).repeat(2, 1)
"""Of every place of the chain: the discount to the power of the steps that are left, on a common scale."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_critics_converge_to_the_discounted_rewards(kind: type, tmp_path: Path) -> None:
    store, ids = chain(tmp_path / "chain"), torch.arange(2)
    more = {"conservative_weight": 0.0, "imitation_steps": 0} if kind is CQL else {}
    agent = build(kind, describe_stores([store]), discount=0.8, target_rate=0.05, **more)
    torch.manual_seed(0)
    learn(agent, store, 900)
    assert agent.reward_scale.tolist() == [1, 10]
    for action in (-0.5, 0.0, 0.5):
        actions = torch.full((2, 6, 1, 1), action).double()
        with torch.no_grad():
            found = agent.values_of(agent.critics, agent.normalise(PLACES, ids), actions, ids).mean(0)[..., 0]
        torch.testing.assert_close(found, WORTH, rtol=0, atol=0.06)


@pytest.mark.slow
def test_conservative_values_of_the_policy_are_no_higher_than_true(tmp_path: Path) -> None:
    """Kumar et al., 2020, theorem 3.2, up to the errors of networks: few actions were recorded."""
    store, ids = chain(tmp_path / "chain"), torch.arange(2)
    agent = build(
        CQL, describe_stores([store]), discount=0.8, target_rate=0.05, imitation_steps=0, samples=4, **PUBLISHED
    )
    assert isinstance(agent, CQL)
    torch.manual_seed(0)
    learn(agent, store, 600)
    with torch.no_grad():
        observed = agent.normalise(PLACES, ids)
        actions, _ = agent._draw(observed, ids, 200)
        found = agent.values_of(agent.critics, observed.repeat(1, 200, 1, 1), actions, ids)
    values = found.mean(0).unflatten(1, (200, 6)).mean((1, 3))
    assert (values < WORTH + 0.1).all() and values.mean() < WORTH.mean()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "more",
    [
        {"sharing": "RandomMasks", "balancer": "PCGrad"},
        {"sharing": "HarmonyMasks", "sharing.interval": 4, "balancer": "UPGrad"},
        {"tasks_per_batch": 2, "balancer": "NashMTL"},
    ],
)
def test_runs_resume_bit_for_bit_and_are_played(kind: type, more: dict, train_options: dict, tmp_path: Path) -> None:
    options = {key: value for key, value in train_options.items() if key != "agent.hidden"}
    network = {"class_path": "SoftModularMLP", "init_args": {"width": 8, "base": [12], "gating": [8]}}
    arguments = {"actor": network, "critic": SMALL, "critic_heads": "per_task"}
    arguments |= {"imitation_steps": 6} if kind is CQL else {}  # within what is done twice
    schedule = {"steps": 12, "log_every": 4, "evaluate_every": 0, "save_every": 5}
    options |= {"agent": {"class_path": kind.__name__, "init_args": arguments}, "schedule": schedule, **more}
    run = train(**options)
    whole = run.checkpoints().load()
    assert any(name.startswith("target_critics") for name in whole["agent"])
    run.checkpoints().file(12).unlink()
    train(resume=run.folder)
    again = run.checkpoints().load()
    for name, value in whole["agent"].items():
        assert torch.equal(value, again["agent"][name]), name
    assert 0 <= run.evaluate(Protocol(goals=1), workers=0, quiet=True).mean_success <= 1


@pytest.mark.parametrize(
    "balancer", ["FAMO", "GeometricMean", "STCH", "DBMTL", "Uncertainty", "GradNorm", "DWA", "IMTLL"]
)
def test_balancers_that_need_positive_losses_say_so(balancer: str, train_options: dict) -> None:
    options = {key: value for key, value in train_options.items() if key not in ("agent.hidden", "schedule")}
    agent = {"class_path": "TD3BC", "init_args": {"actor": SMALL, "critic": SMALL, "critic_weight": 100.0}}
    with pytest.raises(InputError, match=f"{balancer} goes by the relative size of losses; found a loss of -"):
        train(**options, agent=agent, balancer=balancer, schedule={"steps": 40, "evaluate_every": 0})


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (IQL, {"expectile": 1.0}, "expectile is 1.0"),
        (IQL, {"discount": 1.0}, "discount is 1.0"),
        (IQL, {"output_heads": "linear"}, "output_heads is 'linear'; expected shared, per_task or per_group"),
        (TD3BC, {"policy_delay": 0}, "policy_delay is 0"),
        (CQL, {"samples": 0}, "samples is 0"),
        (TD3BC, {"target_rate": 0.0}, "target_rate is 0.0; expected a number in"),
    ],
)
def test_wrong_settings_are_refused(kind: type, options: dict, message: str, spec: DataSpec) -> None:
    with pytest.raises(InputError, match=message):
        build(kind, spec, **options)


def test_critics_of_single_tasks(spec: DataSpec) -> None:
    critic = Critic(NETWORK, 5, 3, 3, "per_task")
    assert critic.head.weight.shape == (3, 24, 1)
    code, ids = torch.eye(3), torch.arange(3)
    values = critic(torch.ones(3, 2, 1, 5), code, ids)
    assert values.shape == (3, 2, 1)
    with torch.no_grad():
        critic.head.bias[1] += 5
    moved = critic(torch.ones(3, 2, 1, 5), code, ids) - values
    torch.testing.assert_close(moved[:, 0, 0], torch.tensor([0.0, 5.0, 0.0]))
    assert (values.abs() < 50).all(), "no tanh, no limits"
