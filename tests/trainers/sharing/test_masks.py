"""Masks: what they keep, how they move, by hand and by law."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.gradients import DenseGradients
from mtorl.trainers.sharing import (
    HarmonyMasks,
    HarmonyMasksReleased,
    MagnitudeMasks,
    RandomMasks,
)
from mtorl.trainers.sharing.masks import MovingMasks, TaskMasks

MOVING = [HarmonyMasks, MagnitudeMasks, HarmonyMasksReleased]


class Net(nn.Module):
    """Two maskable matrices and a bias."""

    def __init__(self, sizes: tuple[int, ...] = (12, 30, 8)) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])


def space_of(net: nn.Module) -> ParameterSpace:
    return ParameterSpace(net, maskable=[net])


def build(masks: TaskMasks, tasks: int = 3, net: nn.Module | None = None, seed: int = 0) -> tuple[TaskMasks, Net]:
    torch.manual_seed(1)
    net = net or Net()
    masks.init(space_of(net), tasks, torch.Generator().manual_seed(seed))
    return masks, net


def move(masks: MovingMasks, net: nn.Module, dense: Tensor, progress: float = 0.5) -> dict[str, float]:
    tasks = torch.arange(len(dense))
    return masks.update(dict(net.named_parameters()), DenseGradients(torch.ones(len(dense)), dense, tasks), progress)


def toy(lam: float, **options: object) -> tuple[HarmonyMasks, nn.Module, Tensor]:
    """Four weights, two tasks, dense gradients that are used as they are."""
    net = nn.Module()
    net.register_parameter("weight", nn.Parameter(torch.tensor([[1.0, -2.0, 3.0, 4.0]])))
    masks = HarmonyMasks(agreement_weight=lam, swap_count=1, schedule="constant", normalise=False, **options)
    masks.init(ParameterSpace(net, maskable=[net]), 2, torch.Generator())
    masks.masks = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 1]], dtype=torch.bool)
    return masks, net, torch.tensor([[0.1, -0.2, 0.3, 0.4], [0.1, 0.4, 0.3, -0.1]])


@pytest.mark.parametrize(
    ("lam", "expected"),
    [
        (10.0, [[1, 0, 1, 1], [1, 1, 1, 0]]),  # agreement: H1 = .11, -.16, .99, .76 and H2 = .11, .56, .99, -.14
        (0.0, [[0, 1, 1, 1], [0, 1, 1, 1]]),  # importance alone; task 2 has a tie at .01: the first one goes
    ],
)
def test_a_change_by_hand(lam: float, expected: list) -> None:
    masks, net, dense = toy(lam)
    numbers = move(masks, net, dense)
    assert masks.masks.int().tolist() == expected and numbers["swapped"] == 1


def test_importance_by_magnitude_and_by_gradient() -> None:
    masks, net, dense = toy(0.0, importance="magnitude")
    move(masks, net, dense)
    assert masks.masks.int().tolist() == [[0, 1, 1, 1], [0, 1, 1, 1]]
    masks, net, dense = toy(0.0, importance="gradient")
    move(masks, net, dense * torch.tensor([1.0, 0.1, 1.0, 1.0]))
    assert masks.masks.int().tolist() == [[1, 0, 1, 1], [1, 0, 1, 1]]


def test_opposed_tasks_leave_out_by_importance_alone() -> None:
    masks, net, dense = toy(10.0)
    move(masks, net, torch.stack([dense[0], -dense[0]]))
    assert masks.masks.int().tolist() == [[0, 1, 1, 1], [0, 1, 1, 1]], "all agreements are zero"


@pytest.mark.parametrize("kind", MOVING)
@pytest.mark.parametrize("scope", ["global", "per_tensor"])
def test_how_many_weights_a_mask_keeps_never_changes(kind: type, scope: str) -> None:
    released = kind is HarmonyMasksReleased
    masks, net = build(kind(0.3, swap_count=5) if released else kind(0.3, swap_fraction=0.1, scope=scope))
    draw, first = torch.Generator().manual_seed(2), masks.masks.clone()
    each = {name: value.clone() for name, value in masks.densities().items()}
    for step in range(1000):
        before = masks.masks.clone()
        numbers = move(masks, net, torch.randn(3, len(space_of(net)), generator=draw), (step % 100) / 100)
        gone, came = (before & ~masks.masks).sum(1), (masks.masks & ~before).sum(1)
        assert torch.equal(gone, came) and gone.double().mean() == numbers["swapped"]
    assert torch.equal(masks.masks.sum(1), first.sum(1)) and not torch.equal(masks.masks, first)
    if scope == "per_tensor" and not released:
        assert all(torch.equal(value, each[name]) for name, value in masks.densities().items())


def test_schedules() -> None:
    def counts(schedule: str) -> list[int]:
        masks = HarmonyMasks(swap_count=100, schedule=schedule)  # type: ignore[arg-type]
        return [masks.swaps(10_000, share) for share in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)]

    assert counts("hump") == [0, 9, 50, 100, 50, 9, 0]
    assert counts("decay") == [100, 97, 85, 50, 14, 2, 0]
    assert counts("constant") == [100] * 7
    assert HarmonyMasks(swap_fraction=0.1, schedule="constant").swaps(1234, 0.3) == 123
    assert HarmonyMasks(swap_count=100, schedule="constant").swaps(40, 0.3) == 40, "not more than there are"
    masks = HarmonyMasks(interval=3)
    assert [index for index in range(9) if masks.due(index)] == [2, 5, 8]


def test_without_swaps_harmony_is_random() -> None:
    still, net = build(HarmonyMasks(swap_fraction=0.0))
    random, _ = build(RandomMasks())
    move(still, net, torch.randn(3, len(space_of(net))))
    assert torch.equal(still.masks, random.masks) and still.changed() == 0


def test_identical_tasks_keep_identical_masks() -> None:
    masks, net = build(HarmonyMasks(swap_fraction=0.2))
    masks.masks[1] = masks.masks[0]
    for seed in range(20):
        dense = torch.randn(3, len(space_of(net)), generator=torch.Generator().manual_seed(seed))
        dense[1] = dense[0]
        move(masks, net, dense)
    assert torch.equal(masks.masks[0], masks.masks[1]) and not torch.equal(masks.masks[0], masks.masks[2])


def test_normalised_scores_do_not_depend_on_the_length_of_a_gradient() -> None:
    for importance in ("fisher", "gradient", "magnitude"):
        one, net = build(HarmonyMasks(importance=importance))  # type: ignore[arg-type]
        other, _ = build(HarmonyMasks(importance=importance))  # type: ignore[arg-type]
        dense = torch.randn(3, len(space_of(net)), dtype=torch.float64)
        move(one, net, dense)
        move(other, net, dense * torch.tensor([[1e-6], [1.0], [1e4]], dtype=torch.float64))
        assert torch.equal(one.masks, other.masks)


def test_a_task_without_gradient_disturbs_nobody() -> None:
    masks, net = build(HarmonyMasks(swap_fraction=0.1))
    alone, _ = build(HarmonyMasks(swap_fraction=0.1))
    alone.masks, alone._drawn = alone.masks[[0, 2]].clone(), alone._drawn[[0, 2]]
    dense = torch.randn(3, len(space_of(net)))
    dense[1] = 0
    ones = masks.masks.sum(1)
    move(masks, net, dense)
    move(alone, net, dense[[0, 2]])  # a mean of two is larger by the same factor everywhere: lambda is, too
    assert torch.equal(masks.masks.sum(1), ones)
    other, _ = build(HarmonyMasks(swap_fraction=0.1, agreement_weight=15.0))
    move(other, net, dense)
    assert torch.equal(other.masks[[0, 2]], alone.masks)


def test_the_release_revives_blindly() -> None:
    """Other gradients where the mask is off, the same masks afterwards."""
    released = []
    for factor in (1.0, -5.0):
        masks, net = build(HarmonyMasksReleased(0.5, swap_count=10))
        assert [index for index in range(500) if masks.due(index)] == [165, 331, 497], "500 steps of 3 single tasks"
        dense = 1e-3 * torch.randn(3, len(space_of(net)), generator=torch.Generator().manual_seed(3))
        for place in masks.places.values():
            dense[:, place.flat] = torch.where(masks.masks[:, place.mine], 1.0, factor) * dense[:, place.flat]
        move(masks, net, dense)
        released.append(masks.masks.clone())
    assert torch.equal(*released)
    harmony, net = build(HarmonyMasks(0.5, swap_count=10))
    first = harmony.masks.clone()
    move(harmony, net, dense)
    back = (released[0] & ~first)[1].nonzero().flatten()
    assert torch.equal(back, (~first[1]).nonzero().flatten()[:10]), "the first ones, whatever they are"
    assert not torch.equal(harmony.masks, released[0])


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_masks_are_drawn_with_their_density(distribution: str) -> None:
    masks, _ = build(RandomMasks(0.4, distribution), 4, Net((300, 200, 300)))  # type: ignore[arg-type]
    assert (masks.masks.double().mean(1) - 0.6).abs().max() < 0.01
    off = masks.overlap()[~torch.eye(4, dtype=torch.bool)]
    assert (off - 0.36).abs().max() < 0.01, "two tasks share the product of their densities"
    assert torch.allclose(masks.overlap().diagonal(), masks.masks.double().mean(1))
    again, _ = build(RandomMasks(0.4, distribution), 4, Net((300, 200, 300)))  # type: ignore[arg-type]
    assert torch.equal(again.masks, masks.masks)


def test_sparsity_zero_is_dense() -> None:
    masks, net = build(RandomMasks(0.0))
    parameters = dict(net.named_parameters())
    assert all(torch.equal(value, parameters[name]) for name, value in masks.effective(parameters, 1).items())
    assert masks.unused(torch.tensor([0])) == {}


def test_what_nobody_uses() -> None:
    masks, _ = build(RandomMasks(0.5))
    for tasks in ([0], [0, 2], [1], [0, 1, 2]):
        unused = masks.unused(torch.tensor(tasks))
        for name, place in masks.places.items():
            nobody = ~torch.stack([masks.mask(name, task) for task in tasks]).any(0).flatten()
            assert torch.equal(unused.get(name, torch.empty(0, dtype=torch.int64)), nobody.nonzero().flatten())
            assert place.shape == masks.mask(name, 0).shape


def test_changed_counts_the_zeros_that_came_back() -> None:
    masks, _ = build(RandomMasks(0.5))
    zeros = (~masks.masks[0]).nonzero().flatten()
    ones = masks.masks[0].nonzero().flatten()
    masks.masks[0, zeros[:20]], masks.masks[0, ones[:20]] = True, False
    assert masks.changed() == pytest.approx(20 / len(zeros) / 3)


@pytest.mark.parametrize("kind", [RandomMasks, *MOVING])
def test_state_is_small_and_comes_back(kind: type, tmp_path: Path) -> None:
    masks, net = build(kind(0.3))
    if isinstance(masks, MovingMasks):
        move(masks, net, torch.randn(3, len(space_of(net))))
    torch.save(masks.state_dict(), tmp_path / "state.pt")
    other, _ = build(kind(0.3), seed=5)
    assert not torch.equal(other.masks, masks.masks)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.masks, masks.masks)
    assert masks.state_dict()["_extra_state"]["masks"].numel() == 3 * -(-masks.masks.shape[1] // 8)


def test_masks_of_another_network_are_refused() -> None:
    masks, _ = build(RandomMasks())
    other, _ = build(RandomMasks(), net=Net((12, 20, 8)))
    with pytest.raises(InputError, match=r"layers\.0\.weight: expected \[20, 12\], found \[30, 12\]; layers"):
        other.load_state_dict(masks.state_dict())
    fewer, _ = build(RandomMasks(), tasks=2)
    with pytest.raises(InputError, match="the masks are 3; expected 2"):
        fewer.load_state_dict(masks.state_dict())


@pytest.mark.parametrize(
    ("build_it", "message"),
    [
        (lambda: RandomMasks(1.0), r"sparsity is 1.0; expected a share in \[0, 1\)"),
        (lambda: RandomMasks(-0.1), "sparsity is -0.1"),
        (lambda: RandomMasks(distribution="even"), "distribution is 'even'; expected one of erk, uniform"),
        (lambda: HarmonyMasks(interval=0), "interval is 0"),
        (lambda: HarmonyMasks(probes=0), "probes is 0"),
        (lambda: HarmonyMasks(swap_fraction=1.5), "swap_fraction is 1.5"),
        (lambda: HarmonyMasks(swap_count=-1), "swap_count is -1; expected at least 0"),
        (lambda: HarmonyMasks(schedule="up"), "schedule is 'up'; expected one of hump, decay, constant"),
        (lambda: HarmonyMasks(scope="layer"), "scope is 'layer'"),
        (lambda: HarmonyMasks(importance="size"), "importance is 'size'; expected one of fisher, magnitude, gradient"),
        (lambda: HarmonyMasks(agreement_weight=-1.0), "agreement_weight is -1.0"),
    ],
)
def test_wrong_settings_are_refused(build_it, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        build_it()


def test_an_agent_without_maskable_weights_is_refused() -> None:
    with pytest.raises(InputError, match="no maskable weights"):
        RandomMasks().init(ParameterSpace(Net()), 3, torch.Generator())
