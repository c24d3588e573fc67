import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from families import SMALL_AGENTS, policy_of
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file

import mtorl
from mtorl import InputError, Player
from mtorl.agents import Agent, BehaviorCloning, DecisionTransformer, DualPolicy
from mtorl.agents.networks import PaCo
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs import PointReach
from mtorl.runs.policy_files import ONNX_PACKAGES, acting_tensors, traced_policy, write_policy
from mtorl.runs.portable import PortablePolicy, check_portable, check_same
from mtorl.runs.run import Run
from mtorl.trainers.policy import PolicyPerGroup
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing

STEPS = 9
"""More than the small agents' context, which begins to slide."""
SMALL = {"width": 16, "layers": 1, "attention_heads": 2, "context": 4, "dropout": 0.0}


class Window:
    """What whoever plays an exported sequence policy keeps: the last steps of N episodes."""

    def __init__(self, forward: Callable[..., torch.Tensor], length: int, target: float) -> None:
        self.forward, self.length, self.left, self.steps = forward, length, target, 0
        self.kept: list[list[torch.Tensor]] = [[], [], [], []]

    def act(self, seen: NDArray, rewards: NDArray, task: int) -> NDArray:
        self.left = self.left - torch.from_numpy(rewards)
        newest = (torch.from_numpy(seen), torch.zeros(len(seen), 2), self.left, torch.full((len(seen),), self.steps))
        for values, value in zip(self.kept, newest, strict=True):
            values[:] = [*values, value][-self.length :]
        action = self.forward(*(torch.stack(values, 1) for values in self.kept), torch.tensor(task))
        self.kept[1][-1] = action
        self.steps += 1
        return action.numpy()


@pytest.mark.parametrize("kind", SMALL_AGENTS)
@pytest.mark.parametrize("sharing", [Shared, RandomMasks])
def test_a_graph_acts_as_the_player(
    kind: type[Agent], sharing: type[Sharing], suite: PointReach, store: EpisodeStore, spec: DataSpec
) -> None:
    agent = kind(spec, **SMALL_AGENTS[kind])
    agent.remember([store])
    policy = policy_of(agent, sharing)
    traced, player = traced_policy(PortablePolicy(policy, suite)), Player(policy, suite)
    draw = np.random.default_rng(0)
    for task, rows in ((0, 1), (2, 3), (1, 12)):
        seen = draw.normal(size=(STEPS, rows, 4)).astype(np.float32)
        earned = draw.random((STEPS, rows)).astype(np.float32) * (np.arange(STEPS) > 0)[:, None]
        player.reset(task=task)
        if isinstance(agent, DecisionTransformer):
            target = float(agent.return_target[task])
            acting = Window(traced, agent.window, target).act
        else:
            acting = lambda seen, _, task: traced(torch.from_numpy(seen), torch.tensor(task)).numpy()  # noqa: E731
        for now, rewards in zip(seen, earned, strict=True):
            np.testing.assert_allclose(acting(now, rewards, task), player.act(now, rewards), atol=1e-6)


def test_either_policy_of_an_agent_with_two(suite: PointReach, spec: DataSpec) -> None:
    agent = DualPolicy(spec, **SMALL_AGENTS[DualPolicy])
    agents = {}
    for name in agent.policies:
        agent.choose(name)
        portable = PortablePolicy(policy_of(agent), suite)
        check_same(portable, traced_policy(portable), "torchscript")
        agents[name] = acting_tensors(portable)[0]
    assert len({*agents["modules"]} - {*agents["transformer"]}) > 0


def test_what_acting_does_not_read_is_left_out(spec: DataSpec, suite: PointReach, store: EpisodeStore) -> None:
    agent = mtorl.agents.IQL(spec)
    tensors, differing = acting_tensors(PortablePolicy(policy_of(agent), suite))
    assert not differing and not any("critic" in name or "value" in name for name in tensors)
    assert sum(it.size for it in map(np.asarray, tensors.values())) < 0.5 * sum(it.numel() for it in agent.parameters())


def test_models_of_groups_are_one_module(spec: DataSpec, suite: PointReach) -> None:
    groups = [("away-0", "towards-0"), ("towards-2",)]
    policies = []
    for names in groups:
        rows = [spec.task_names.index(name) for name in names]
        own = {
            key: tuple(value[row] for row in rows)
            for key, value in vars(spec).items()
            if key in ("steps", "episodes", "observation_mean", "observation_std", "return_quantiles")
        }
        rates = {key: tuple(getattr(spec, key)[row] for row in rows) for key in ("success_rate", "success_last_rate")}
        policies.append(policy_of(BehaviorCloning(replace(spec, task_names=names, groups=None, **own, **rates))))
    policy = PolicyPerGroup(spec.task_names, policies)
    portable, player = PortablePolicy(policy, suite), Player(policy, suite)
    traced = traced_policy(portable)
    check_same(portable, traced, "torchscript")
    seen = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    for number, name in enumerate(spec.task_names):
        player.reset(name)
        found = traced(torch.from_numpy(seen), torch.tensor(number)).numpy()
        np.testing.assert_allclose(found, player.act(seen), atol=1e-6)
    assert {name.split(".")[0] for name in acting_tensors(portable)[0]} == {"shown", "group-0", "group-1"}


def test_the_goal_is_hidden_as_in_training(spec: DataSpec, suite: PointReach) -> None:
    policy = policy_of(BehaviorCloning(spec, hidden=(8,)))
    hidden = suite.changed(goal_visible=False)
    seen = torch.full((2, 4), 0.3)
    other = torch.from_numpy(hidden.hide_goal(seen.numpy()))
    found = [PortablePolicy(policy, it)(seen, torch.tensor(0)) for it in (hidden, suite)]
    assert torch.equal(found[0], PortablePolicy(policy, suite)(other, torch.tensor(0)))
    assert not torch.equal(*found)


def test_agents_that_do_not_say_how_they_decide_are_refused(spec: DataSpec) -> None:
    class Own(BehaviorCloning):
        decides_on = ()

    with pytest.raises(InputError, match=r"Own does not say how it acts on tensors alone \(Agent.decide\)"):
        check_portable(policy_of(Own(spec, hidden=(8,))), "onnx")


def test_a_form_with_other_actions_is_refused(spec: DataSpec, suite: PointReach) -> None:
    portable = PortablePolicy(policy_of(BehaviorCloning(spec, hidden=(8,))), suite)
    with pytest.raises(InputError, match=r"cannot be written as onnx: with 1 observations its actions differ by"):
        check_same(portable, lambda *inputs: portable(*inputs) + 1e-3, "onnx")

    def baked(*inputs: torch.Tensor) -> torch.Tensor:
        return portable(*inputs).view(10, -1)

    with pytest.raises(InputError, match="with 1 observations it ends with: shape"):
        check_same(portable, baked, "onnx")


@pytest.fixture
def run(baseline: Callable[[dict], Run], train_options: dict) -> Run:
    return baseline(train_options)


def test_torch_alone_runs_the_file(run: Run, tmp_path: Path) -> None:
    write_policy(run, tmp_path, "torchscript")
    seen = np.random.default_rng(2).normal(size=(5, 4)).astype(np.float32)
    np.save(tmp_path / "seen.npy", seen)
    code = """
import json, sys, torch, numpy
extra = {"policy.json": ""}
policy = torch.jit.load("policy.pt", _extra_files=extra)
task = json.loads(extra["policy.json"])["tasks"].index("away-0")
actions = policy(torch.from_numpy(numpy.load("seen.npy")), torch.tensor(task))
assert not [name for name in sys.modules if name.startswith("mtorl")]
numpy.save("actions.npy", actions.numpy())
"""
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True, env={"OMP_NUM_THREADS": "1"})
    player = mtorl.load_policy(run)
    player.reset("away-0")
    np.testing.assert_allclose(np.load(tmp_path / "actions.npy"), player.act(seen), atol=1e-6)


def test_numpy_computes_the_same_from_the_tensors(run: Run, tmp_path: Path) -> None:
    path = write_policy(run, tmp_path, "safetensors")
    tensors = load_file(path)
    with safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["mtorl"])
    assert about == json.loads((tmp_path / "policy.json").read_text())
    assert about["per_task"] == [] and about["tasks"] == list(run.spec.task_names)
    seen, task = np.random.default_rng(3).normal(size=(7, 4)).astype(np.float32), 2
    clip = about["agent"]["init_args"]["clip"]
    values = (seen * tensors["shown"][task] - tensors["observation_mean"][task]) / tensors["observation_std"][task]
    values = np.concatenate([values.clip(-clip, clip), np.tile(np.eye(3, dtype=np.float32)[task], (7, 1))], 1)
    for layer in range(2):
        weight, bias = (tensors[f"backbone.layers.{layer}.{name}"] for name in ("weight", "bias"))
        values = np.maximum(values @ weight.T + bias, 0)
    actions = np.tanh(values @ tensors["head.weight"][0] + tensors["head.bias"][0])
    player = mtorl.load_policy(run)
    player.reset(task)
    np.testing.assert_allclose(actions, player.act(seen), atol=1e-6)


def test_masks_give_every_task_weights_of_its_own(spec: DataSpec, suite: PointReach) -> None:
    policy = policy_of(BehaviorCloning(spec, hidden=(8, 8)), RandomMasks)
    tensors, differing = acting_tensors(PortablePolicy(policy, suite))
    assert differing
    for name in differing:
        assert tensors[name].shape[0] == 3
        assert (tensors[name] == 0).any() and not torch.equal(tensors[name][0], tensors[name][1])


@pytest.mark.parametrize("kind", [BehaviorCloning, pytest.param(DecisionTransformer, marks=pytest.mark.slow)])
def test_onnx(kind: type[Agent], run: Run, spec: DataSpec, suite: PointReach, tmp_path: Path) -> None:
    onnxruntime = [pytest.importorskip(name) for name in ONNX_PACKAGES][-1]
    if kind is DecisionTransformer:
        from mtorl.runs.policy_files import _onnx

        portable = PortablePolicy(policy_of(kind(spec, **SMALL)), suite)
        _onnx(portable, {"inputs": {}})  # compares all tasks, numbers of rows and of steps by itself
        return
    session = onnxruntime.InferenceSession(write_policy(run, tmp_path, "onnx"))
    player = mtorl.load_policy(run)
    for task, rows in ((0, 1), (1, 4), (2, 30)):
        seen = np.random.default_rng(task).normal(size=(rows, 4)).astype(np.float32)
        player.reset(task)
        (found,) = session.run(None, {"observations": seen, "task": np.array(task)})
        np.testing.assert_allclose(found, player.act(seen), atol=1e-6)


@pytest.mark.parametrize("options", [{"task_identity": "none"}, {"network": partial(PaCo, components=2, hidden=(8,))}])
def test_onnx_of_what_the_older_exporter_does_not_know(options: dict, spec: DataSpec, suite: PointReach) -> None:
    """It would end the process on tensors without elements, and refuses the other."""
    for name in ONNX_PACKAGES:
        pytest.importorskip(name)
    from mtorl.runs.policy_files import _onnx

    assert _onnx(
        PortablePolicy(policy_of(BehaviorCloning(spec, **options)), suite), {"inputs": {}}
    )  # compares by itself


def test_onnx_says_what_it_needs(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtorl.runs.policy_files.ONNX_PACKAGES", ("onnx_of_nobody",))
    with pytest.raises(InputError, match=r"ONNX needs onnx_of_nobody: install `mtorl\[onnx\]`"):
        write_policy(run, tmp_path, "onnx")
