import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mtorl import InputError
from mtorl.datasets.store import EpisodeStore
from mtorl.trainers.optimizer import OptimizerSettings, PhaseOptimizer


def test_learning_rate() -> None:
    settings = OptimizerSettings(lr=1.0, warmup=10, schedule="cosine")
    assert [settings.rate(step, 110) for step in (0, 4, 9, 10, 60, 110)] == pytest.approx([0.1, 0.5, 1, 1, 0.5, 0])
    assert OptimizerSettings(lr=1.0, warmup=0, schedule="constant").rate(99, 100) == 1


def test_clipping_bounds_the_norm_and_zero_leaves_it() -> None:
    for clip, expected in ((0.5, 0.5), (0.0, 5.0)):
        module = nn.Linear(2, 1, bias=False)
        optimizer = PhaseOptimizer(OptimizerSettings(clip=clip), module, [], [], 10)
        module.weight.grad = torch.tensor([[3.0, 4.0]])
        assert optimizer.step(0, torch.tensor([0]))["gradient_norm"] == 5.0
        assert module.weight.grad.norm() == pytest.approx(expected, rel=1e-4)


class Table(nn.Module):
    """A row for each of four tasks, and something shared."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.arange(8.0).view(4, 2) + 1)
        self.shared = nn.Parameter(torch.ones(3))


def test_rows_of_absent_tasks_do_not_move_despite_momentum_and_decay() -> None:
    module = Table()
    settings = OptimizerSettings(lr=0.1, weight_decay=0.1, warmup=0)
    optimizer = PhaseOptimizer(settings, module, [], [module.rows], 100)

    def step(tasks: list[int]) -> None:
        optimizer.zero_grad()
        (module.rows[tasks].square().sum() + module.shared.sum()).backward()
        optimizer.step(0, torch.tensor(tasks))

    step([0, 1])  # the very first step: there are no moments yet
    assert torch.equal(module.rows[2:], torch.arange(4.0, 8.0).view(2, 2) + 1)
    step([0, 1, 2, 3])
    before = module.rows.detach().clone()
    moments = {name: value.clone() for name, value in optimizer._adam.state[module.rows].items()}
    step([1])
    moved = (module.rows.detach() != before).any(1)
    assert moved.tolist() == [False, True, False, False]
    for name in ("exp_avg", "exp_avg_sq"):
        now = optimizer._adam.state[module.rows][name]
        assert (now != moments[name]).any(1).tolist() == [False, True, False, False]


def test_rows_that_take_part_seldom_take_steps_of_the_usual_length() -> None:
    """With a constant gradient Adam moves by the learning rate; a row must not notice the steps of others."""
    module = Table()
    settings = OptimizerSettings(lr=0.01, weight_decay=0.1, warmup=0, schedule="constant", clip=0.0)
    optimizer = PhaseOptimizer(settings, module, [], [module.rows], 1000)
    for index in range(200):
        task = index % 4
        before = module.rows.detach()[task].clone()
        optimizer.zero_grad()
        (module.rows[[task]].sum() + module.shared.sum()).backward()
        optimizer.step(index, torch.tensor([task]))
        moved = before * (1 - 0.01 * 0.1) - module.rows.detach()[task]
        torch.testing.assert_close(moved, torch.full((2,), 0.01), rtol=1e-3, atol=1e-6)


def test_continuing_from_a_state_changes_nothing() -> None:
    def make() -> tuple[Table, PhaseOptimizer]:
        module = Table()
        return module, PhaseOptimizer(OptimizerSettings(warmup=3), module, [], [module.rows], 10)

    def advance(module: Table, optimizer: PhaseOptimizer, steps: range) -> None:
        for index in steps:
            optimizer.zero_grad()
            (module.rows.square().sum() + module.shared.exp().sum()).backward()
            optimizer.step(index, torch.tensor([0, 2]))

    whole = make()
    advance(*whole, range(8))
    first = make()
    advance(*first, range(4))
    second = make()
    second[0].load_state_dict(first[0].state_dict())
    second[1].load_state_dict(first[1].state_dict())
    advance(*second, range(4, 8))
    for expected, found in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(expected, found)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    module = nn.Linear(2, 1)
    before = [value.detach().clone() for value in module.parameters()]
    optimizer = PhaseOptimizer(OptimizerSettings(), module, [], [], 10)
    module.weight.grad = torch.tensor([[float("nan"), 1.0]])
    with pytest.raises(InputError, match="norm is nan at step 0"):
        optimizer.step(0, torch.tensor([0]))
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(InputError, match=r"betas \[1.5, 0.9\]"):
        OptimizerSettings(betas=(1.5, 0.9))
    with pytest.raises(InputError, match="lr is 0; expected a positive number"):
        OptimizerSettings(lr=0)


class GroupTable(nn.Module):
    """A row for each of two groups of four tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.arange(4.0).view(2, 2) + 1)


def test_the_row_of_a_group_moves_if_one_of_its_tasks_is_in_the_batch() -> None:
    """And then as if its tasks were one: moments and their correction are those of the row."""
    groups, settings = torch.tensor([0, 1, 0, 1]), OptimizerSettings(lr=0.1, weight_decay=0.1, warmup=0)
    module, single = GroupTable(), GroupTable()
    grouped = PhaseOptimizer(settings, module, [], [module.rows], 100, row_of={module.rows: groups})
    alone = PhaseOptimizer(settings, single, [], [single.rows], 100)
    for index, tasks in enumerate([[0, 1], [2], [0, 2], [3], [1, 3, 0], [2]]):
        before, rows = module.rows.detach().clone(), sorted({int(groups[task]) for task in tasks})
        for table, optimizer, present in ((module, grouped, tasks), (single, alone, rows)):
            optimizer.zero_grad()
            table.rows[rows].square().sum().backward()
            optimizer.step(index, torch.tensor(present))
        moved = (module.rows != before).any(1)
        assert moved.nonzero().flatten().tolist() == rows
        assert torch.equal(module.rows, single.rows)


def test_steps_are_those_of_torch_to_the_last_bit_without_its_compiler() -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    settings = OptimizerSettings(warmup=0, schedule="constant", clip=0.0)
    optimizer = PhaseOptimizer(settings, ours, [], [], 10)
    adam = torch.optim.AdamW(
        theirs.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, betas=settings.betas, fused=True
    )
    for index in range(3):
        for module in (ours, theirs):
            for value in module.parameters():
                value.grad = torch.full_like(value, 0.3 - index)
        optimizer.step(index, torch.tensor([0]))
        adam.step()
    assert all(torch.equal(one, two) for one, two in zip(ours.parameters(), theirs.parameters(), strict=True))
    mine, torchs = optimizer.state_dict()["adam"], adam.state_dict()
    assert mine["state"].keys() == torchs["state"].keys() and mine["param_groups"][0]["params"] == [0, 1]
    assert all(torch.equal(mine["state"][it]["exp_avg"], torchs["state"][it]["exp_avg"]) for it in mine["state"])
    optimizer.zero_grad()
    assert all(value.grad is None for value in ours.parameters())


def test_training_does_not_load_torchs_compiler(store: EpisodeStore, tmp_path: Path) -> None:
    """It would take a second of every start."""
    code = """
import sys
from mtorl.commands.main import main
assert main(sys.argv[1:]) == 0
assert not {"torch._dynamo", "scipy.optimize", "scipy.stats"} & set(sys.modules)
"""
    options = ["--schedule.steps", "2", "--schedule.evaluate_every", "0", "--workers", "0", "--quiet", "true"]
    command = [sys.executable, "-c", code, "train", "--data", str(store.path), "--out", str(tmp_path / "run"), *options]
    subprocess.run(command, check=True)
