import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mtorl import InputError
from mtorl.agents import BehaviorCloning, SoftModular
from mtorl.agents.heads import GaussianHead
from mtorl.agents.networks.soft_modules import FEW, ModuleLayer, SoftModularMLP
from mtorl.datasets.spec import DataSpec
from mtorl.envs.base import RolloutContext

SIZES = [(1, 1), (1, 3), (2, 2), (3, 1), (4, 4)]


def network(modules: int, layers: int, routing: str = "state") -> SoftModularMLP:
    torch.manual_seed(0)
    return SoftModularMLP(5, 3, modules, layers, 16, (12, 12), (8, 8), routing).double()  # type: ignore[arg-type]


def inputs() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 7, 2, 5, generator=torch.Generator().manual_seed(1)).double(), torch.eye(3).double()


def one_module_after_the_other(net: SoftModularMLP, weights: list[Tensor], observations: Tensor) -> Tensor:
    """The paper's equations as they stand, in loops; the routing is given."""
    values = functional.relu(net._base(observations))
    outputs: list[Tensor] = []
    for number, layer in enumerate(net.layers):
        found = []
        for module in range(net.modules_per_layer):
            rows = slice(module * net.size, (module + 1) * net.size)
            if number:
                mixed = sum(weights[number - 1][..., module, it, None] * outputs[it] for it in range(len(outputs)))
                values = functional.relu(mixed)  # type: ignore[arg-type]
            found.append(functional.linear(values, layer.weight[rows], layer.bias[rows]))  # type: ignore[index]
        outputs = found
    mixed = sum(weights[-1][..., it, None] * outputs[it] for it in range(len(outputs)))
    return functional.relu(mixed)  # type: ignore[arg-type]


@pytest.mark.parametrize(("modules", "layers"), SIZES)
def test_it_is_what_the_paper_says(modules: int, layers: int) -> None:
    net, (observations, code) = network(modules, layers), inputs()
    weights = net.weights(net._base(observations), code)
    assert [tuple(it.shape) for it in weights] == [(3, 7, 2, modules, modules)] * (layers - 1) + [(3, 7, 2, modules)]
    for it in weights:
        torch.testing.assert_close(it.sum(-1), torch.ones_like(it.sum(-1)))
        assert (it > 0).all()
    expected = one_module_after_the_other(net, weights, observations)
    torch.testing.assert_close(net(observations, code), expected, rtol=1e-9, atol=1e-12)
    assert modules == 1 or weights[-1].std(0).max() > 1e-4, "routing is the same for all tasks: nothing is shown"


def test_the_routing_network_is_a_cascade() -> None:
    """Written out for two layers: the second mixture depends on the first one."""
    net, (observations, code) = network(2, 2), inputs()
    router, base = net.router, net._base(observations)
    hidden = functional.relu(base * router.embed(code)[:, None, None])  # type: ignore[misc]
    gate = router.gates[1](functional.relu(router.gates[0](hidden)))
    first = router.out[0](functional.relu(gate)).view(3, 7, 2, 2, 2).softmax(-1)
    second = router.out[1](functional.relu(router.mix[0](first.flatten(-2)) * gate)).softmax(-1)
    found = net.weights(base, code)
    torch.testing.assert_close(found[0], first)
    torch.testing.assert_close(found[1], second)


@pytest.mark.parametrize("routing", ["state", "task"])
def test_with_identical_modules_routing_does_not_matter(routing: str) -> None:
    net, (observations, code) = network(3, 3, routing), inputs()
    with torch.no_grad():
        for layer in net.layers:
            for values in (layer.weight, layer.bias):
                rows = values.view(3, -1, *values.shape[1:])  # type: ignore[operator, union-attr]
                rows[:] = rows[:1].clone()
    before = net(observations, code)
    with torch.no_grad():
        for value in net.router.parameters():
            value.normal_(generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(net(observations, code), before)


def test_one_module_is_a_plain_network() -> None:
    net, (observations, code) = network(1, 3), inputs()
    values = functional.relu(net._base(observations))
    for layer in net.layers:
        values = functional.relu(functional.linear(values, layer.weight, layer.bias))  # type: ignore[arg-type]
    torch.testing.assert_close(net(observations, code), values)


@pytest.mark.parametrize("chosen", [0, 2])
def test_a_one_hot_mixture_is_that_module_alone(chosen: int) -> None:
    net, (observations, code) = network(3, 2), inputs()
    with torch.no_grad():
        for out in net.router.out:
            out.weight.zero_()  # type: ignore[operator, union-attr]
            out.bias.view(-1, 3)[:] = torch.where(torch.arange(3) == chosen, 1e4, -1e4)  # type: ignore[operator, union-attr]
    found = net(observations, code)
    values = functional.relu(net._base(observations))
    rows = slice(chosen * 16, chosen * 16 + 16)
    for layer in net.layers:
        values = functional.relu(functional.linear(values, layer.weight[rows], layer.bias[rows]))  # type: ignore[index]
    torch.testing.assert_close(found, values)
    found.sum().backward()
    for layer in net.layers:
        gradient = layer.weight.grad.view(3, 16, -1).abs().sum((1, 2))  # type: ignore[operator, union-attr]
        assert gradient[chosen] > 0 and gradient.sum() == gradient[chosen], "others are not used, so they do not move"


@pytest.mark.parametrize(("modules", "layers"), SIZES)
def test_merged_modules_act_alike(modules: int, layers: int) -> None:
    net, (observations, code) = network(modules, layers, "task"), inputs()
    expected = net(observations, code)
    for task in range(3):
        seen = observations[task, :, 0]
        play = net.prepared(code[[task]].expand(7, -1))
        torch.testing.assert_close(play(seen), expected[task, :, 0], rtol=1e-9, atol=1e-12)
    several = net.prepared(code[[0, 1, 2, 1]])  # an episode of each: nothing to merge
    torch.testing.assert_close(several(observations[[0, 1, 2, 1], 0, 0]), expected[[0, 1, 2, 1], 0, 0])


def test_masks_leave_the_routing_network_alone(spec: DataSpec) -> None:
    agent = SoftModular(spec, width=16, base=(12, 12), gating=(8,))
    space = agent.phases[0].space
    masked = {name for name, maskable in zip(space.names, space.maskable, strict=True) if maskable}
    assert masked == {f"backbone.{part}.{number}.weight" for part in ("base", "layers") for number in (0, 1)}


def test_published_sizes(spec: DataSpec) -> None:
    for modules, layers, width in ((2, 2, 256), (4, 4, 128)):
        agent = SoftModular(spec, modules=modules, layers=layers, width=width)
        count = modules * (400 * width + width) + (layers - 1) * modules * (width * width + width)
        found = sum(value.numel() for layer in agent.backbone.layers for value in layer.parameters())
        assert found == count


def test_routing_is_said_per_task(spec: DataSpec) -> None:
    from mtorl.datasets.sampler import TaskBatch

    draw = torch.Generator().manual_seed(0)
    shape = (3, 4, 1)
    batch = TaskBatch(
        torch.randn(*shape, 4, generator=draw),
        torch.zeros(*shape, 2),
        torch.zeros(shape),
        torch.zeros(shape),
        torch.zeros(shape, dtype=torch.long),
        torch.ones(shape, dtype=torch.bool),
        torch.arange(3),
    )
    for routing in ("state", "task"):
        agent = SoftModular(spec, modules=3, layers=2, width=8, base=(12,), gating=(8,), routing=routing)  # type: ignore[arg-type]
        found = agent.routing(batch)
        assert [tuple(it.shape) for it in found] == [(3, 3, 3), (3, 3)]
        for it in found:
            torch.testing.assert_close(it.sum(-1), torch.ones_like(it.sum(-1)))
    assert BehaviorCloning(spec).routing(batch) == []


def test_a_gaussian_policy_learns_how_sure_it_is() -> None:
    torch.manual_seed(0)
    head = GaussianHead(3, 2, 1)
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    features = torch.ones(1, 400, 1, 3)
    noise = torch.tensor([0.05, 0.2]) * torch.randn(1, 400, 1, 2)
    targets, valid, task = torch.tensor([0.3, -0.6]) + noise, torch.ones(1, 400, 1, dtype=torch.bool), torch.tensor([0])
    for _ in range(400):
        optimizer.zero_grad()
        head.losses(features, targets, valid, task).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(head.deviations(task).detach()[0, 0, 0], [0.05, 0.2], rtol=0.1)
    acted = head.act(features[0, :1, 0], task).detach()[0]
    np.testing.assert_allclose(acted, [0.3, -0.6], atol=0.03)
    expected = torch.distributions.Normal(head.means(features, task), head.deviations(task)).log_prob(targets).sum(-1)
    torch.testing.assert_close(head.log_likelihood(features, targets, task), expected)
    with torch.no_grad():
        head.spread.fill_(-9.0)  # as sure as can be
    head.zero_grad()
    head.losses(features, targets, valid, task).sum().backward()
    assert head.spread.grad is not None and (head.spread.grad < 0).all(), "and on its way back"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modules": 0}, "modules is 0"),
        ({"layers": 0}, "layers is 0"),
        ({"base": []}, "base is"),
        ({"gating": [0]}, "gating is"),
        ({"routing": "token"}, "routing is 'token'; expected one of state, task"),
        ({"routing": "task", "task_identity": "none"}, "routing=task needs a vector for each task"),
        ({"distribution": "cauchy"}, "distribution is 'cauchy'"),
        ({"distribution": "gaussian", "output_heads": "linear"}, "cannot be linear"),
    ],
)
def test_wrong_settings_are_refused(options: dict, message: str, spec: DataSpec) -> None:
    with pytest.raises(InputError, match=message):
        SoftModular(spec, **options)


def test_hidden_tasks_are_routed_by_what_is_seen(spec: DataSpec) -> None:
    agent = SoftModular(spec, width=8, base=(12,), gating=(8,), task_identity="none")
    agent.reset(RolloutContext(None, np.arange(2)))
    assert agent.act(np.ones((2, 4), np.float32), np.zeros(2, np.float32)).shape == (2, 2)


def test_few_rows_and_many_are_computed_alike() -> None:
    torch.manual_seed(0)
    layer = ModuleLayer(3, 5, 7, common=False).double()
    values = torch.randn(2 * FEW, 3, 5).double()
    many = layer(values)
    torch.testing.assert_close(layer(values[:FEW]), many[:FEW])
    for module in range(3):
        weight, bias = layer.weight[7 * module : 7 * module + 7], layer.bias[7 * module : 7 * module + 7]
        torch.testing.assert_close(many[:, module], functional.linear(values[:, module], weight, bias))
