from pathlib import Path

import numpy as np
import pytest
import torch

from mtorl.datasets.prompts import PromptPool, PromptSettings
from mtorl.datasets.sampler import TaskSampler
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.envs.collect import collect
from mtorl.trainers.sharing.group_gate import GateChoice, GroupGate

NAMES = ["towards-0", "towards-1", "away-0", "away-1"]
LABELS = [0, 0, 1, 1]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> EpisodeStore:
    folder = tmp_path_factory.mktemp("gate")
    return collect(PointReach(NAMES), folder / "train", "expert", episodes=20, workers=0, quiet=True)


def fit(store: EpisodeStore) -> tuple[GroupGate, float]:
    torch.manual_seed(0)
    return GroupGate.fit(TaskSampler([store], NAMES, 16, 10, np.random.default_rng(0)), LABELS)


@pytest.fixture(scope="module")
def gate(recorded: EpisodeStore) -> GroupGate:
    return fit(recorded)[0]


def test_families_are_told_apart_on_goals_that_were_never_seen(gate: GroupGate, tmp_path: Path) -> None:
    other = collect(
        PointReach(NAMES), tmp_path / "other", "expert", episodes=20, split="heldout", workers=0, quiet=True
    )
    sampler = TaskSampler([other], NAMES, 64, 10, np.random.default_rng(1))
    batch = sampler.draw()
    rewards = torch.cat([torch.zeros_like(batch.rewards[..., :1]), batch.rewards[..., :-1]], -1)
    right = gate(batch.observations, rewards, batch.valid).argmax(-1) == torch.tensor(LABELS)[:, None]
    assert right.double().mean() > 0.95
    shown = PromptPool([other], NAMES, PromptSettings(length=1)).demonstrations()
    assert [gate.of_demonstration(it) for it in shown] == LABELS


def test_small_rewards_are_seen_as_well(
    recorded: EpisodeStore, gate: GroupGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "rewards", recorded.rewards * np.float32(1e-3))
    small = fit(recorded)[0]
    torch.testing.assert_close(small.weights["std"][-1], gate.weights["std"][-1] * 1e-3)
    assert torch.equal(small.weights["std"][:-1], gate.weights["std"][:-1])
    monkeypatch.setattr(recorded, "rewards", recorded.rewards * 0)
    assert float(fit(recorded)[0].weights["std"][-1]) == 1


def test_probabilities_and_padding(gate: GroupGate) -> None:
    draw = torch.Generator().manual_seed(0)
    observations, rewards = torch.randn(3, 7, 4, generator=draw), torch.rand(3, 7, generator=draw)
    scores = gate(observations, rewards)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(3))
    valid = torch.arange(7) < torch.tensor([[7], [4], [1]])
    masked = gate(torch.where(valid[..., None], observations, 50.0), torch.where(valid, rewards, -3.0), valid)
    for row, steps in enumerate((7, 4, 1)):
        torch.testing.assert_close(masked[row], gate(observations[row, :steps], rewards[row, :steps]))


def test_what_is_seen_of_an_episode_as_it_begins(gate: GroupGate) -> None:
    """Each step, the group is that of all steps so far; after `steps` it stays."""
    draw = np.random.default_rng(0)
    observations = draw.normal(size=(14, 3, 4)).astype(np.float32)
    rewards = draw.random((14, 3)).astype(np.float32)
    choice = GateChoice(gate, 3, None)
    groups = []
    buffer = np.empty((3, 4), np.float32)  # as in evaluations, which write every observation to the same place
    for step in range(14):
        assert choice.settled == (step >= gate.steps)
        buffer[:] = observations[step]
        groups.append(choice(buffer, rewards[step]))
    for step in range(gate.steps):
        seen, earned = (torch.tensor(it[: step + 1].swapaxes(0, 1)) for it in (observations, rewards))
        assert groups[step].tolist() == gate(seen, earned).argmax(-1).tolist()
    assert all(it.tolist() == groups[9].tolist() for it in groups[10:])
    assert len({tuple(it.tolist()) for it in groups}) > 1


def test_a_demonstration_decides_alone(gate: GroupGate, recorded: EpisodeStore) -> None:
    for shown, label in zip(
        PromptPool([recorded], NAMES, PromptSettings(length=1)).demonstrations(), LABELS, strict=True
    ):
        choice = GateChoice(gate, 5, shown)
        assert choice.settled and choice(np.zeros((5, 4), np.float32), np.zeros(5, np.float32)).tolist() == [label] * 5


def test_fitting_is_reproducible_and_kept(gate: GroupGate, recorded: EpisodeStore) -> None:
    again, right = fit(recorded)
    assert 0.9 < right <= 1
    restored = GroupGate.from_state(gate.state_dict())
    assert restored.groups == 2 and restored.steps == 10
    for name, value in gate.weights.items():
        assert torch.equal(value, again.weights[name]) and torch.equal(value, restored.weights[name])
        assert not value.requires_grad
