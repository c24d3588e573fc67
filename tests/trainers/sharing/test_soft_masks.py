"""Soft masks, by hand and by law."""

import math

import pytest
import torch
from torch import Tensor, nn

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.gradients import DenseGradients
from mtorl.trainers.sharing import SoftMasks
from mtorl.trainers.sharing.soft_masks import lower_fence


def build(tasks: int = 3, sizes: tuple[int, int] = (40, 50), **options: object) -> tuple[SoftMasks, nn.Module]:
    net, masks = nn.Linear(*sizes), SoftMasks(**options)  # type: ignore[arg-type]
    masks.init(ParameterSpace(net, maskable=[net]), tasks, torch.Generator())
    return masks, net


def change(masks: SoftMasks, net: nn.Module, dense: Tensor, progress: float = 0.3) -> dict[str, float]:
    tasks = torch.arange(len(dense))
    return masks.update(dict(net.named_parameters()), DenseGradients(torch.ones(len(dense)), dense, tasks), progress)


def noise(tasks: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(tasks, 40 * 50 + 50, generator=torch.Generator().manual_seed(seed))


def test_the_fence_is_tukeys() -> None:
    scores = torch.tensor([0.0, 1, 2, 3, 4, 5, 0, 0])
    assert lower_fence(scores, 0.0) == 2 and lower_fence(scores, 1.5) == -1
    assert lower_fence(torch.zeros(5), 1.0) == -math.inf
    many = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    assert lower_fence(many, 1.5) == pytest.approx(-2.698, abs=0.03), "of a sample"


def test_a_change_by_hand() -> None:
    """Two tasks, unit gradients: only the second weight conflicts, and is worth more to the task that wants it more."""
    masks, net = build(2, (2, 2), conflict_weight=2.0, fences=(0.0, 0.0, 0.0), rate=0.5)
    dense = torch.zeros(2, 6)
    dense[0, :4], dense[1, :4] = torch.tensor([0.5, 0.8, 0.2, 0.2]), torch.tensor([0.5, -0.4, 0.2, 0.2])
    numbers = change(masks, net, dense)
    units = dense[:, :4] / dense[:, :4].norm(dim=1, keepdim=True)
    mean = units.mean(0)
    assert (units[1] * mean)[1] < 0 < (units[0] * mean)[1], "the first is nearer to the mean"
    share = units[1, 1].abs() / (units[1, 1].abs() + 2 * mean[1].abs())
    expected = torch.ones(2, 4)
    expected[1, 1] = 1 + 0.5 * (share - 1)
    torch.testing.assert_close(masks.masks, expected)
    assert numbers["conflicting"] == 1 / 8 and numbers["least"] == 0 < numbers["most"]
    assert numbers["changed"] == masks.changed() == pytest.approx(float(1 - expected.mean()), abs=1e-6)


def test_values_stay_shares_and_return_when_the_conflict_is_over() -> None:
    masks, net = build(rate=0.5)
    for seed in range(30):
        change(masks, net, noise(seed=seed), seed / 30)
        assert masks.masks.min() >= 0 and masks.masks.max() <= 1
    held = masks.changed()
    assert held > 0.002
    for _ in range(40):
        change(masks, net, noise()[:1].expand(3, -1), 0.5)
    assert masks.changed() < 1e-6 < held


def test_the_schedule_is_an_asymmetric_cosine() -> None:
    masks = SoftMasks(fences=(3.0, 0.5, 1.5), peak=0.2)
    found = [masks.fence(share) for share in (0, 0.1, 0.2, 0.4, 0.6, 1)]
    assert found == pytest.approx([3, 1.75, 0.5, 0.5 + 0.5 * (1 - math.cos(math.pi / 4)), 1.0, 1.5])
    held = []
    for progress in (0.0, 0.2, 1.0):
        masks, net = build(fences=(3.0, 0.5, 1.5), peak=0.2)
        held.append(change(masks, net, noise(), progress)["conflicting"])
    assert held[0] < held[2] < held[1], "most at the peak"
    assert [index for index in range(250) if SoftMasks(interval=100).due(index)] == [99, 199]


def test_tasks_have_a_sparsity_of_their_own() -> None:
    """That of their scores' distribution, not of their gradients' length."""
    masks, net = build(rate=1.0)
    dense = noise()
    dense[1] = dense[1].pow(5)  # of heavy tails: more of its conflicts are outliers
    change(masks, net, dense)
    shares = masks.masks.mean(1)
    assert len(set(shares.tolist())) == 3 and shares.max() - shares.min() > 0.005
    other, net = build(rate=1.0)
    change(other, net, dense * torch.tensor([[1e-6], [1.0], [1e3]]))
    torch.testing.assert_close(other.masks, masks.masks, rtol=1e-4, atol=1e-5)


def test_important_weights_are_kept_more() -> None:
    masks, net = build(rate=1.0)
    dense = noise()
    change(masks, net, dense)
    conflicting = masks.masks < 1
    ratio = (dense / dense.norm(dim=1, keepdim=True)).abs()[:, : 40 * 50]
    for task in range(3):
        values, strengths = masks.masks[task][conflicting[task]], ratio[task][conflicting[task]]
        strong = strengths > strengths.median()
        assert values[strong].mean() > values[~strong].mean()


def test_a_task_alone_and_a_weight_of_zero_hold_nothing_back() -> None:
    for tasks, options in ((1, {}), (3, {"conflict_weight": 0.0})):
        masks, net = build(tasks, **options)
        change(masks, net, noise(tasks))
        assert (masks.masks == 1).all() and masks.changed() == 0
    masks, net = build()
    change(masks, net, torch.zeros(3, 2050))
    assert (masks.masks == 1).all(), "nobody has a gradient"


def test_tasks_compute_with_shares_of_the_weights() -> None:
    masks, net = build()
    change(masks, net, noise())
    parameters = dict(net.named_parameters())
    mine = masks.masks[1].view(50, 40)
    effective = masks.effective(parameters, 1)
    assert torch.equal(effective["weight"], parameters["weight"] * mine) and effective["bias"] is parameters["bias"]
    back = masks.pull_back({name: torch.ones_like(value) for name, value in parameters.items()}, 1)
    assert torch.equal(back["weight"], mine) and (back["bias"] == 1).all()
    (hidden,) = masks.without_task(parameters)
    torch.testing.assert_close(hidden["weight"], parameters["weight"] * masks.masks.mean(0).view(50, 40))
    assert not masks.unused(torch.tensor([0])), "nothing is left out altogether"
    assert "masks" in masks.state_dict()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="fences is"):
        SoftMasks(fences=(1.0, 2.0))
    for options in ({"peak": 1.0}, {"rate": 0.0}, {"interval": 0}, {"probes": 0}, {"conflict_weight": -1.0}):
        with pytest.raises(InputError, match=next(iter(options))):
            SoftMasks(**options)  # type: ignore[arg-type]
