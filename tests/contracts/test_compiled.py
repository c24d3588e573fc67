"""What is compiled computes what is not: losses, gradients of tasks, and training; for every agent."""

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from families import SMALL_AGENTS, sampler_of

from mtorl import InputError
from mtorl.agents import Agent, BehaviorCloning, PromptDecisionTransformer
from mtorl.agents.base import TaskLosses
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.runs.training import train
from mtorl.trainers.balancers import Balancer, Equal, PCGrad
from mtorl.trainers.computation import Computation, Execution
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.optimizer import OptimizerSettings
from mtorl.trainers.phase_trainer import phase_trainers
from mtorl.trainers.seeding import isolated
from mtorl.trainers.sharing import RandomMasks, Shared, Sharing


def small(kind: type, spec: DataSpec) -> Agent:
    options = SMALL_AGENTS[kind]
    if "attention_heads" in options:
        options = options | {"layers": 1}  # compiling takes as many seconds as there are layers
    with isolated(0, "init"):
        agent: Agent = kind(spec, **options)
    return agent


def losses_of(
    agent: Agent, store: EpisodeStore, computation: Computation, balancer: Balancer, sharing: Sharing, steps: int = 3
) -> list[list[float]]:
    """Of some steps of all phases, wherever in training they are due."""
    agent, settings = copy.deepcopy(agent), OptimizerSettings(lr=1e-2, warmup=0)
    phases = phase_trainers(agent, balancer, sharing, settings, 100, 0, computation)
    sampler, found = sampler_of(agent, store, agent.spec), []
    agent.train()
    for _ in range(steps):
        batch = sampler.draw()
        for phase in phases:
            update = phase.update(batch, phase.span.start)
            phase.move(update)
            found.append(update.first_losses.tolist())
    return found


@pytest.mark.parametrize("kind", SMALL_AGENTS, ids=lambda kind: kind.__name__)
def test_compiled_training_is_training(kind: type, store: EpisodeStore, spec: DataSpec) -> None:
    """One pass for all tasks; steps differ in windows, and nothing is compiled again."""
    agent = small(kind, spec)
    expected = losses_of(agent, store, Computation(), Equal(), Shared())
    with torch._dynamo.config.patch(error_on_recompile=True):
        found = losses_of(agent, store, Computation(compile="aot_eager"), Equal(), Shared())
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "execution"),
    [
        (BehaviorCloning, "loop"),
        (BehaviorCloning, "vmap"),
        pytest.param(PromptDecisionTransformer, "vmap", marks=pytest.mark.slow),
    ],
)
def test_gradients_of_single_tasks_agree(kind: type, execution: Execution, store: EpisodeStore, spec: DataSpec) -> None:
    """With masks that have moved since something was compiled; a loop takes fewer tasks as they are, too."""
    agent, masks = small(kind, spec), RandomMasks(sparsity=0.5)
    masks.init(agent.phases[0].space, 3, torch.Generator().manual_seed(0))
    functions = [PhaseFunctions(agent, 0, Computation(execution, backend)) for backend in (None, "aot_eager")]
    sampler = sampler_of(agent, store, spec)
    for number in range(3):
        batch, found = sampler.draw(), []
        if number == 2 and execution == "loop":
            batch = batch.select([2, 0])
        masks.masks.copy_(masks.masks.roll(number, 1))
        for each in functions:
            with isolated(0, "dropout"), torch._dynamo.config.patch(error_on_recompile=True):
                gradients, private = each.gradients(batch, masks)
            found.append({"losses": gradients.losses, "rows": gradients.pulled_back.clone(), **private})
        for name, value in found[0].items():
            torch.testing.assert_close(found[1][name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_what_the_compiler_fuses_agrees(store: EpisodeStore, spec: DataSpec) -> None:
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("needs a C++ compiler")
    agent = small(BehaviorCloning, spec)
    expected = losses_of(agent, store, Computation(), PCGrad(), RandomMasks())
    found = losses_of(agent, store, Computation(compile="inductor"), PCGrad(), RandomMasks())
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-5, atol=1e-5)


def test_a_compiled_run_resumes_bit_for_bit(train_options: dict) -> None:
    schedule = {"steps": 6, "log_every": 2, "evaluate_every": 0, "save_every": 3}
    options = train_options | {"compile": "aot_eager", "sharing": "RandomMasks", "schedule": schedule}
    run = train(**options)
    whole = run.checkpoints().load()["agent"]
    run.checkpoints().file(6).unlink()
    train(resume=run.folder)
    for name, value in run.checkpoints().load()["agent"].items():
        assert torch.equal(value, whole[name])
    with pytest.raises(InputError, match=r"compile: 'aot_eager' in the .* None asked for"):
        train(resume=run.folder, compile=None)


class Branching(BehaviorCloning):
    """Decides by what it sees."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec, hidden=(8,))
        self.phases = (replace(self.phases[0], losses=self._either),)

    def _either(self, batch: TaskBatch) -> TaskLosses:
        found = self._losses(batch)
        return found if float(found.values.sum()) > 0 else TaskLosses(-found.values)


def test_what_cannot_be_compiled_is_refused_before_anything_is_written(
    store: EpisodeStore, spec: DataSpec, train_options: dict
) -> None:
    with pytest.raises(InputError, match=r"the step cannot be compiled .*Leave --compile out"):
        losses_of(Branching(spec), store, Computation(compile="aot_eager"), Equal(), Shared())
    bayes = {"agent": "BehaviorCloning", "agent.output_heads": "linear", "balancer": "BayesAgg"}
    with pytest.raises(InputError, match="BayesAgg needs gradients at what the heads see"):
        train(**train_options | bayes | {"compile": "aot_eager"})
    assert not Path(train_options["out"]).exists()


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (None, "no-such-compiler"))
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler.*Install g\+\+"):
        Computation(compile="inductor").check(torch.device("cpu"), torch.float32)
