"""Networks that policies and critics are made of: what all must do, and what each is."""

import copy
import math
from typing import Any

import pytest
import torch
from families import NETWORKS, concrete
from torch import Tensor
from torch.nn import functional

from mtorl import InputError
from mtorl.agents import BehaviorCloning
from mtorl.agents.networks import MLPBackbone, Network
from mtorl.agents.networks.base import Backbone
from mtorl.agents.networks.branches import DMTG
from mtorl.agents.networks.care import CARE
from mtorl.agents.networks.film import FiLM
from mtorl.agents.networks.moore import MOORE, orthonormal
from mtorl.agents.networks.paco import PaCo
from mtorl.datasets.spec import DataSpec
from mtorl.trainers.executions import PhaseFunctions

TASKS, INPUTS = 3, 5


def names(network: Network) -> str:
    return network.func.__name__  # type: ignore[attr-defined]


@pytest.fixture(params=NETWORKS, ids=names)
def network(request: pytest.FixtureRequest) -> Backbone:
    torch.manual_seed(0)
    return request.param(INPUTS, TASKS).double()


@pytest.fixture(autouse=True)
def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that draw noise draw the same for all tasks."""
    monkeypatch.setattr(torch, "rand_like", lambda values: torch.full_like(values, 0.8))


def inputs(*inner: int) -> tuple[Tensor, Tensor]:
    return torch.randn(TASKS, *inner, INPUTS).double(), torch.eye(TASKS).double()


def test_every_network_is_under_this_contract() -> None:
    ours = {kind for kind in concrete(Backbone)[1:] if kind.__module__.startswith("mtorl.")}
    assert ours == {network.func for network in NETWORKS}  # type: ignore[attr-defined]


def test_features_of_any_number_of_inner_axes(network: Backbone) -> None:
    observations, code = inputs(4, 2)
    found = network(observations, code)
    assert found.shape == (TASKS, 4, 2, network.size) and torch.isfinite(found).all()
    torch.testing.assert_close(network(observations[:, 1, 1], code), found[:, 1, 1])
    torch.testing.assert_close(network(observations[:, 1], code), found[:, 1])


def test_tasks_do_not_see_each_other(network: Backbone) -> None:
    observations, code = inputs(4, 1)
    torch.testing.assert_close(network(observations[[2, 0]], code[[2, 0]]), network(observations, code)[[2, 0]])


def test_the_task_makes_a_difference(network: Backbone) -> None:
    for value in network.parameters():  # FiLM starts without one
        value.data += 0.05 * torch.randn_like(value)
    observations, code = inputs(4, 1)
    same = observations[:1].expand_as(observations)
    assert not torch.allclose(network(same, code)[0], network(same, code)[1], atol=1e-4)


@pytest.mark.parametrize("rows", [[1, 1, 1, 1], [0, 2, 1, 2]], ids=["one task", "several"])
def test_prepared_for_acting(network: Backbone, rows: list[int]) -> None:
    observations, code = torch.randn(4, INPUTS).double(), torch.eye(TASKS).double()[rows]
    network.eval()
    torch.testing.assert_close(network.prepared(code)(observations), network(observations, code))


@pytest.mark.parametrize("gains", [False, True])
def test_linear_layers_prepared_for_acting_give_the_same_bits(gains: bool) -> None:
    network, rows = MLPBackbone(INPUTS, TASKS, (16, 8)), [0, 2, 1, 2, 0]
    factors = [torch.rand(len(rows), size) for size in (16, 8)] if gains else []
    code = torch.eye(TASKS)[rows]
    play = network.prepared(code, factors)
    with torch.no_grad():
        for _ in range(3):
            observations = torch.randn(len(rows), INPUTS)
            assert torch.equal(play(observations), network(observations, code, factors))


def test_every_parameter_is_used_and_masks_find_matrices(network: Backbone) -> None:
    network(*inputs(6, 1)).square().sum().backward()
    for name, value in network.named_parameters():
        assert value.grad is not None and value.grad.any(), name
    matrices = [value for part in network.maskable() for value in part.parameters() if value.ndim > 1]
    assert matrices and all(value.ndim == 2 for value in matrices)


def test_how_tasks_mix_parts(network: Backbone) -> None:
    layers = network.mean_weights(*inputs(6, 1))
    assert len(layers) == {"SoftModularMLP": 2, "CARE": 1, "DMTG": 1}.get(type(network).__name__, 0)
    for layer in layers:
        assert layer.shape[0] == TASKS and (layer > 0).all()
        torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer.sum(-1)))


def test_orthonormal() -> None:
    vectors = torch.randn(7, 4, 9)
    basis = orthonormal(vectors)
    torch.testing.assert_close(basis @ basis.mT, torch.eye(4).expand(7, 4, 4), rtol=0, atol=1e-5)
    expected = []
    for number in range(4):  # the process as it is taught
        rest = vectors[:, number]
        for other in expected:
            rest = rest - (rest * other).sum(-1, keepdim=True) * other
        expected.append(rest / rest.norm(dim=-1, keepdim=True))
    torch.testing.assert_close(basis, torch.stack(expected, 1), rtol=0, atol=1e-4)
    torch.testing.assert_close(orthonormal(vectors[:, :1]), functional.normalize(vectors[:, :1], dim=-1))


def test_experts_that_say_nothing_or_the_same() -> None:
    for vectors in (torch.zeros(2, 3, 5), torch.ones(2, 3, 5)):
        vectors.requires_grad_()
        basis = orthonormal(vectors)
        torch.testing.assert_close(basis @ basis.mT, torch.eye(3).expand(2, 3, 3), rtol=0, atol=1e-3)
        basis.sum().backward()
        assert vectors.grad is not None and torch.isfinite(vectors.grad).all()


def test_a_task_with_one_expert_takes_its_direction() -> None:
    network = MOORE(INPUTS, TASKS, experts=3, hidden=(8, 6)).double()
    with torch.no_grad():
        network.mix.weight.copy_(2 * torch.eye(3))  # task i takes twice direction i
    observations, code = inputs(4, 1)
    same = observations[:1].expand_as(observations)
    directions = torch.atanh(network(same, code)) / 2
    gram = torch.einsum("tblf,sblf->blts", directions, directions)
    torch.testing.assert_close(gram, torch.eye(3).double().expand_as(gram), rtol=0, atol=1e-8)


def test_composed_weights() -> None:
    network = PaCo(INPUTS, 6, components=2, hidden=(8, 7)).double()
    matrix, bias = network.composed(torch.eye(6).double())[0]
    assert torch.linalg.matrix_rank(torch.cat([matrix.flatten(1), bias.flatten(1)], 1)) == 2
    first = network.layers[0].weight.unflatten(0, (2, 8))  # type: ignore[operator, union-attr]
    mixture = network.mix(torch.eye(6).double())[4]
    torch.testing.assert_close(matrix[4], mixture[0] * first[0] + mixture[1] * first[1])


def test_one_component_of_weight_one_is_plain_sharing() -> None:
    network = PaCo(INPUTS, TASKS, components=1, hidden=(8, 7)).double()
    plain = MLPBackbone(INPUTS, 0, (8, 7)).double()
    with torch.no_grad():
        network.mix.weight.zero_()
        network.mix.bias.fill_(1)
        for ours, theirs in zip(network.layers, plain.layers, strict=True):
            theirs.weight.copy_(ours.weight)  # type: ignore[operator, arg-type]
            theirs.bias.copy_(ours.bias)  # type: ignore[operator, arg-type]
    observations, code = inputs(4, 2)
    torch.testing.assert_close(network(observations, code), plain(observations, code[:, :0]))


def test_film_begins_as_plain_layers_and_scales_and_shifts() -> None:
    network = FiLM(INPUTS, TASKS, hidden=(8,)).double()
    observations, code = inputs(4, 1)
    layer = network.layers[0]
    torch.testing.assert_close(network(observations, code), functional.relu(layer(observations)))
    with torch.no_grad():
        network.modulation[0].weight.copy_(torch.randn(16, TASKS))  # type: ignore[operator, union-attr]
    scale, shift = network.modulation[0].weight.T.chunk(2, 1)  # type: ignore[operator, union-attr]
    expected = functional.relu(layer(observations[1]) * (1 + scale[1]) + shift[1])
    torch.testing.assert_close(network(observations, code)[1], expected)


def test_attention_that_is_sure_is_one_encoder() -> None:
    network = CARE(INPUTS, TASKS, encoders=4, encoding=6, hidden=(8,)).double()
    with torch.no_grad():
        network.attention[2].bias.copy_(torch.tensor([0.0, 0.0, 1e4, 0.0]))  # type: ignore[operator, union-attr]
    before = network(*(given := inputs(4, 1)))
    others = copy.deepcopy(network)
    with torch.no_grad():
        for layer in others.encoders:
            for value in layer.parameters():
                parts = value.unflatten(0, (4, -1))
                parts[[0, 1, 3]] = torch.randn_like(parts[[0, 1, 3]])
    torch.testing.assert_close(others(*given), before)


@pytest.mark.parametrize("kind", [MOORE, PaCo, CARE, FiLM])
def test_impossible_settings_are_refused(kind: type) -> None:
    with pytest.raises(InputError, match=f"{kind.__name__} needs a vector for each task"):
        kind(INPUTS, 0)
    with pytest.raises(InputError, match="hidden is \\[0\\]; expected one or more positive"):
        kind(INPUTS, TASKS, hidden=[0])


def test_impossible_numbers_are_refused(spec: DataSpec) -> None:
    with pytest.raises(InputError, match="components is 0; expected at least 1"):
        PaCo(INPUTS, TASKS, components=0)
    with pytest.raises(InputError, match="experts is 9; expected at most 8"):
        MOORE(INPUTS, TASKS, experts=9, hidden=(8,))
    with pytest.raises(InputError, match="task_gain belongs to the linear layers"):
        BehaviorCloning(spec, network=NETWORKS[0], task_gain=True)


def test_cloning_with_linear_layers_by_name_is_plain_cloning(spec: DataSpec) -> None:
    torch.manual_seed(0)
    plain = BehaviorCloning(spec, hidden=(24, 24))
    torch.manual_seed(0)
    named = BehaviorCloning(spec, network=NETWORKS[0])
    for one, other in zip(plain.parameters(), named.parameters(), strict=True):
        assert torch.equal(one, other)
    assert PhaseFunctions(named).space.names == PhaseFunctions(plain).space.names


def branched(branches: int = 3, **options: Any) -> DMTG:
    return DMTG(INPUTS, TASKS, branches, stem=(8,), hidden=(7, 6), **options).double()


def sure(network: DMTG, *choices: int) -> None:
    """Every task chooses one branch, as good as surely."""
    with torch.no_grad():
        network.choice.weight.fill_(-50)
        for task, branch in enumerate(choices):
            network.choice.weight[branch, task] = 50


def branch_losses(network: DMTG, *given: Tensor) -> Tensor:
    """Of each task, as an agent mixes them, where a loss is the mean square of features."""
    found = network.branches(*given)
    assert found is not None
    each = torch.stack([features.square().mean((1, 2, 3)) for features in found.features], -1)
    return (found.shares * each).sum(-1) + found.penalty


def test_shares_sum_to_one_and_are_draws_in_training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    network, code = branched(), torch.eye(TASKS).double()
    torch.manual_seed(0)
    first, second = network.shares(code), network.shares(code)
    for shares in (first, second):
        assert (shares > 0).all()
        torch.testing.assert_close(shares.sum(-1), torch.ones(TASKS).double())
    assert not torch.allclose(first, second), "every pass draws anew"
    torch.manual_seed(0)
    assert torch.equal(network.shares(code), first), "as the state of the program says"
    draws = torch.stack([network.shares(code) for _ in range(4000)]).mean((0, 1))
    torch.testing.assert_close(draws, torch.full_like(draws, 1 / 3), rtol=0, atol=0.01)
    assert torch.equal(network.eval().shares(code), torch.eye(3).double()[[0, 0, 0]])


def test_equal_branches_leave_nothing_to_choose() -> None:
    network, given = branched(), inputs(4, 1)
    with torch.no_grad():
        for value in network.layers.parameters():
            value.copy_(value.chunk(3)[0].repeat(3, *[1] * (value.ndim - 1)))
    loss = branch_losses(network, *given)
    loss.sum().backward()
    assert network.choice.weight.grad is not None
    torch.testing.assert_close(network.choice.weight.grad, torch.zeros_like(network.choice.weight))
    with torch.no_grad():
        network.choice.weight.copy_(torch.randn_like(network.choice.weight))
    torch.testing.assert_close(branch_losses(network, *given), loss)


def test_sure_choices_route_exactly_and_leave_other_branches_alone() -> None:
    network, (observations, code) = branched(), inputs(4, 1)
    sure(network, 2, 0, 2)
    loss = branch_losses(network, observations, code)
    loss.sum().backward()
    for value in network.layers.parameters():
        assert value.grad is not None
        first, second, third = value.grad.chunk(3)
        assert first.any() and third.any() and second.abs().max() < 1e-12
    alone = network._branch(network._stem(observations[1]), 0)
    torch.testing.assert_close(loss[1], alone.square().mean())
    assert network.choices(code).tolist() == [2, 0, 2]


@pytest.mark.parametrize("rows", [[1, 1, 1], [0, 2, 1, 0]], ids=["one task", "several"])
def test_acting_computes_the_chosen_branches_only(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    network = branched().eval()
    sure(network, 2, 0, 2)
    observations, code = torch.randn(len(rows), INPUTS).double(), torch.eye(TASKS).double()[rows]
    whole, computed = network(observations, code), []
    real = network._branch
    monkeypatch.setattr(network, "_branch", lambda values, branch: (computed.append(branch), real(values, branch))[1])
    torch.testing.assert_close(network.prepared(code)(observations), whole, rtol=1e-12, atol=1e-12)
    assert computed == sorted({[2, 0, 2][row] for row in rows})


def test_one_branch_is_plain_layers() -> None:
    network, plain = branched(1), MLPBackbone(INPUTS, 0, (8, 7, 6)).double()
    with torch.no_grad():
        for ours, theirs in zip([*network.stem, *network.layers], plain.layers, strict=True):
            theirs.weight.copy_(ours.weight)  # type: ignore[operator, arg-type]
            theirs.bias.copy_(ours.bias)  # type: ignore[operator, arg-type]
    observations, code = inputs(4, 2)
    torch.testing.assert_close(network(observations, code), plain(observations, code[:, :0]))
    found = network.branches(observations, code)
    assert found is not None and len(found.features) == 1 and not found.penalty.any()
    torch.testing.assert_close(found.features[0], plain(observations, code[:, :0]))


def test_the_temperature_falls_and_is_saved() -> None:
    network = branched(temperature=5.0, final_temperature=0.5, anneal_steps=10)
    seen = []
    for _ in range(12):
        seen.append(float(network.temperature))
        network.after_step()
    assert seen[0] == 5.0 and seen[5] == pytest.approx(5.0 / 10**0.5) and seen[10] == pytest.approx(0.5)
    assert seen[11] == seen[10]
    other = branched(temperature=5.0, final_temperature=0.5, anneal_steps=10)
    other.load_state_dict(network.state_dict())
    assert float(other.temperature) == float(network.temperature)
    constant = branched()
    constant.after_step()
    assert float(constant.temperature) == 2.5


def test_the_entropy_of_choices_can_be_punished() -> None:
    network, given = branched(2, entropy=1.2), inputs(4, 1)
    found = network.branches(*given)
    assert found is not None
    torch.testing.assert_close(found.penalty, torch.full((TASKS,), 1.2 * 2 * math.log(2)).double())
    sure(network, 0, 1, 1)
    found = network.branches(*given)
    assert found is not None and not found.penalty.gt(1e-12).any()


def test_choices_can_learn_faster() -> None:
    """A step that is as long in all parameters moves the logits that many times further."""
    plain, fast = branched(2), branched(2, choice_rate=10.0)
    code = torch.eye(TASKS).double()
    torch.testing.assert_close(fast.logits(code), plain.logits(code))
    for network in (plain, fast):
        with torch.no_grad():
            network.choice.weight[1] += 0.01
    torch.testing.assert_close(fast.logits(code) - 1, 10 * (plain.logits(code) - 1))


def test_impossible_branches_are_refused() -> None:
    with pytest.raises(InputError, match="branches is 4; expected at most 3, the size of the tasks' vectors"):
        branched(4)
    with pytest.raises(InputError, match=r"final_temperature is 0\.01; expected at least 0.05"):
        branched(final_temperature=0.01)
