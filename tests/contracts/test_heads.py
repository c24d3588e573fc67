"""What every head must do."""

import inspect
import math
from functools import partial

import pytest
import torch
from families import concrete
from torch import Tensor

from mtorl import InputError
from mtorl.agents.heads import GaussianHead, Head, RegressionHead, SmallTowers, VariationalHeads

FEATURES, ACTIONS, TASKS = 5, 2, 4
HEADS: dict[str, tuple[type, tuple]] = {
    "RegressionHead-shared": (RegressionHead, (FEATURES, ACTIONS, TASKS, "shared")),
    "RegressionHead-per_task": (RegressionHead, (FEATURES, ACTIONS, TASKS, "per_task")),
    "RegressionHead-linear": (RegressionHead, (FEATURES, ACTIONS, TASKS, "linear")),
    "GaussianHead-shared": (GaussianHead, (FEATURES, ACTIONS, TASKS, "shared")),
    "GaussianHead-per_task": (GaussianHead, (FEATURES, ACTIONS, TASKS, "per_task")),
    "RegressionHead-per_group": (RegressionHead, (FEATURES, ACTIONS, TASKS, "per_group", (0, 1, 0, 2))),
    "GaussianHead-per_group": (GaussianHead, (FEATURES, ACTIONS, TASKS, "per_group", (0, 1, 0, 2))),
    "VariationalHeads": (VariationalHeads, (FEATURES, ACTIONS, TASKS)),
    "VariationalHeads-learned": (VariationalHeads, (FEATURES, ACTIONS, TASKS, "learned")),
    "SmallTowers-shared": (SmallTowers, (FEATURES, ACTIONS, TASKS)),
    "SmallTowers-per_task": (SmallTowers, (FEATURES, ACTIONS, TASKS, partial(RegressionHead, kind="per_task"))),
    "SmallTowers-variational": (SmallTowers, (FEATURES, ACTIONS, TASKS, VariationalHeads, "bottleneck", 3)),
}
IDS = torch.tensor([3, 0, 2])
"""Tasks of a batch: not all of them, and not in order."""


@pytest.fixture(params=HEADS)
def head(request: pytest.FixtureRequest) -> Head:
    kind, arguments = HEADS[request.param]
    torch.manual_seed(0)
    made: Head = kind(*arguments).double()
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.3 * torch.randn_like(value))
    return made


@pytest.fixture(autouse=True)
def without_noise(even_noise: None) -> None:
    """Heads that draw noise draw the same for all tasks and positions."""


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Features, targets, and which positions are valid, of the three tasks."""
    draw = torch.Generator().manual_seed(1)
    features = torch.randn(3, 4, 6, FEATURES, generator=draw, dtype=dtype)
    targets = 2 * torch.rand(3, 4, 6, ACTIONS, generator=draw, dtype=dtype) - 1
    return features, targets, torch.rand(3, 4, 6, generator=draw) < 0.6


def rows_of(head: Head) -> int:
    """Rows of its parameters, if tasks have some of their own: one each, or one for each group."""
    return TASKS if head.row_of is None else len(head.row_of.unique())


def test_every_head_is_under_this_contract() -> None:
    kinds = {kind for kind in concrete(Head) if not inspect.isabstract(kind) and kind.__module__.startswith("mtorl.")}
    assert kinds == {kind for kind, _ in HEADS.values()}


def test_losses_are_means_over_valid_positions(head: Head) -> None:
    features, targets, valid = batch()
    found = head.losses(features, targets, valid, IDS)
    assert found.shape == (3,) and found.isfinite().all()
    for place in range(3):
        alone = []
        for window, step in valid[place].nonzero().tolist():
            one = torch.zeros_like(valid)
            one[place, window, step] = True
            alone.append(head.losses(features, targets, one, IDS)[place])
        torch.testing.assert_close(found[place], torch.stack(alone).mean(), rtol=1e-12, atol=1e-12)


def test_padding_is_not_seen(head: Head) -> None:
    features, targets, valid = batch()
    features.requires_grad_(True)
    found = head.losses(features, targets, valid, IDS)
    (gradient,) = torch.autograd.grad(found.sum(), features)
    assert not gradient[~valid].any() and gradient[valid].any(-1).all()
    noise, other = 1e3 * torch.randn_like(features), torch.randn_like(targets)
    seen = torch.where(valid[..., None], features, noise), torch.where(valid[..., None], targets, other)
    assert torch.equal(head.losses(*seen, valid, IDS), found)


def test_a_task_without_valid_positions_has_loss_zero(head: Head) -> None:
    features, targets, valid = batch()
    valid[1] = False
    found = head.losses(features, targets, valid, IDS)
    assert found[1] == 0 and found.isfinite().all()
    found.sum().backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in head.parameters())


def test_tasks_do_not_see_each_other(head: Head) -> None:
    features, targets, valid = batch()
    found = head.losses(features, targets, valid, IDS)
    for order in ([2, 0, 1], [1], [0, 2]):
        some = head.losses(features[order], targets[order], valid[order], IDS[order])
        torch.testing.assert_close(some, found[order], rtol=1e-12, atol=1e-12)


def test_rows_of_other_tasks_get_no_gradient(head: Head) -> None:
    features, targets, valid = batch()
    head.losses(features, targets, valid, IDS)[0].backward()
    rows = {id(row) for row in head.task_rows()}
    for row in head.task_rows():
        assert len(row) == rows_of(head) and row.grad is not None
        assert row.grad[-1].any() and not row.grad[:-1].any(), "that of task 3 is the last one"
    for name, value in head.named_parameters():
        assert id(value) in rows or (value.grad is not None and value.grad.any()), f"{name} learns from every task"


@pytest.mark.parametrize("size", [0.0, 1.0, 1e6])
def test_actions_are_within_their_limits(head: Head, size: float) -> None:
    draw = torch.Generator().manual_seed(2)
    features = size * torch.randn(50, FEATURES, generator=draw, dtype=torch.float64)
    tasks = torch.arange(50) % TASKS
    actions = head.act(features, tasks)
    assert actions.shape == (50, ACTIONS) and actions.isfinite().all() and actions.abs().max() <= 1
    assert torch.equal(head.act(features, tasks), actions), "acting draws nothing"


def test_rows_that_act_do_not_see_each_other(head: Head) -> None:
    features, tasks = batch()[0].flatten(0, 2), torch.arange(72) % TASKS
    together = head.act(features, tasks)
    for row in (0, 13, 71):
        torch.testing.assert_close(head.act(features[row : row + 1], tasks[row : row + 1])[0], together[row])
    own = head.act(features[:1].expand(TASKS, -1), torch.arange(TASKS))
    assert len({tuple(row) for row in own.tolist()}) == (rows_of(head) if head.per_task else 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("device", ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])])
def test_everything_is_of_the_dtype_and_on_the_device_of_the_features(
    head: Head, dtype: torch.dtype, device: str
) -> None:
    """`meta` computes shapes only, and refuses what lies elsewhere as a GPU does."""
    head.to(device, dtype)
    features, targets, valid = (it.to(device) for it in batch(dtype))
    tasks = IDS.to(device)
    losses, actions = head.losses(features, targets, valid, tasks), head.act(features[:, 0, 0], tasks)
    assert losses.dtype == actions.dtype == dtype
    assert losses.device.type == actions.device.type == device
    strengths = head.strengths()
    assert (strengths is None) == (not head.per_task)
    assert strengths is None or (strengths.shape == (TASKS, FEATURES) and not strengths.requires_grad)


def test_tasks_of_a_group_have_one_map(head: Head) -> None:
    if head.row_of is None:
        return
    features = torch.randn(1, FEATURES, dtype=torch.float64).expand(TASKS, -1)
    said = head.act(features, torch.arange(TASKS))
    for one in range(TASKS):
        for other in range(TASKS):
            assert torch.equal(said[one], said[other]) == bool(head.row_of[one] == head.row_of[other])


def test_groups_must_be_there() -> None:
    with pytest.raises(InputError, match=r"output_heads is per_group, but the tasks are in no groups. Add --grouping"):
        RegressionHead(FEATURES, ACTIONS, TASKS, "per_group")


def test_what_only_training_needs_does_not_act(head: Head) -> None:
    """Stripped, a head acts as it did, bit for bit, and has nothing left that only training needs."""
    features, targets, valid = batch()
    tasks = torch.arange(24) % TASKS
    before, sizes = head.act(features[0].flatten(0, 1), tasks), [it.numel() for it in head.parameters()]
    gone = sum(it.numel() for it in head.training_only())
    head.strip()
    assert torch.equal(head.act(features[0].flatten(0, 1), tasks), before)
    assert not head.training_only() and sum(it.numel() for it in head.parameters()) == sum(sizes) - gone
    assert head.losses(features, targets, valid, IDS).isfinite().all()


def test_private_parts_are_those_of_single_tasks(head: Head) -> None:
    parts = [parameter for part in head.private() for parameter in part.parameters()]
    assert {id(it) for it in parts} == {id(it) for it in head.task_rows()}


def test_losses_made_of_plain_heads_can_be_their_own(head: Head) -> None:
    """The squared error of predictions and the additions are the loss, where one half is the variance of actions."""
    features, targets, valid = batch()
    if not head.plain:
        return
    for part in head.modules():
        if isinstance(part, VariationalHeads):
            part.log_variance.fill_(math.log(0.5))
    errors = ((head.predictions(features, IDS) - targets).square().mean(-1) * valid).sum((1, 2)) / valid.sum((1, 2))
    made = errors + head.additions(features, targets, valid, IDS)
    torch.testing.assert_close(made, head.losses(features, targets, valid, IDS), rtol=1e-12, atol=1e-12)
    assert head.means(features, IDS).abs().max() <= 1


def widened(name: str, narrow: Head, more: int) -> Head:
    """The same head with further action dimensions, in which there is something else."""
    kind, (features, actions, *rest) = HEADS[name]
    wide: Head = kind(features, actions + more, *rest).double()
    with torch.no_grad():
        for new, old in zip(wide.parameters(), narrow.parameters(), strict=True):
            new.copy_(torch.randn_like(new))
            new[tuple(map(slice, old.shape))] = old
    return wide


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("owners", [(), (1,)])
def test_padded_action_dimensions_are_not_there(name: str, owners: tuple[int, ...]) -> None:
    """Losses, gradients and actions of the tasks of a batch are those of a head of their own dimensions.

    Another task may have them all: the prior of related heads is made of those tasks that have the dimension.
    """
    kind, arguments = HEADS[name]
    torch.manual_seed(0)
    narrow: Head = kind(*arguments).double()
    wide = widened(name, narrow, 5)
    owned = torch.ones(TASKS, ACTIONS + 5).double()
    owned[[task for task in range(TASKS) if task not in owners], ACTIONS:] = 0
    wide.own(owned)
    features, targets, valid = batch()
    padding = targets.new_zeros(*targets.shape[:-1], 5)
    found, expected = (
        head.losses(features, values, valid, IDS) + head.additions(features, values, valid, IDS)
        for head, values in ((wide, torch.cat([targets, padding], -1)), (narrow, targets))
    )
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    for new, old in zip(wide.parameters(), narrow.parameters(), strict=True):
        own = tuple(map(slice, old.shape))
        torch.testing.assert_close(new.grad[own], old.grad)
        new.grad[own] = 0
        assert not new.grad.any(), "something is learned from padding"
    acts = wide.act(features[:, 0, 0], IDS)
    torch.testing.assert_close(acts[:, :ACTIONS], narrow.act(features[:, 0, 0], IDS))
    assert not acts[:, ACTIONS:].any() and not wide.predictions(features, IDS)[..., ACTIONS:].any()
