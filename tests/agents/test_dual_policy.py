import json
from pathlib import Path

import numpy as np
import pytest
import torch
from families import SMALL_AGENTS, sampler_of
from torch import Tensor

from mtorl import InputError
from mtorl.agents import DualPolicy
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext
from mtorl.envs.protocol import Protocol
from mtorl.reports.comparison import compare
from mtorl.reports.run_report import report
from mtorl.runs.run import Run
from mtorl.runs.sweep import Sweep
from mtorl.runs.training import train
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.logs import read_log
from mtorl.trainers.sharing import Shared


def build(spec: DataSpec, **options: object) -> DualPolicy:
    torch.manual_seed(0)
    return DualPolicy(spec, **{**SMALL_AGENTS[DualPolicy], **options}).double()


def weights(run: Run, step: int) -> dict[str, Tensor]:
    return run.checkpoints().read(str(step))[0]["agent"]


def test_gradients_of_both_reach_the_transformer(spec: DataSpec, store: EpisodeStore) -> None:
    agent = build(spec)
    batch = sampler_of(agent, store, spec).draw().to("cpu", torch.float64)
    found = []
    for position in (0, 1):
        functions = PhaseFunctions(agent, position)
        rows = functions.gradients(batch, Shared())[0].pulled_back
        space = functions.space
        reached = {name for name in space.names if rows[:, space.slice_of(name)].abs().max() > 0}
        found.append((set(space.names), reached, dict(zip(space.names, space.maskable, strict=True))))
    (first, first_reached, first_masks), (second, second_reached, second_masks) = found
    shared = {name for name in first if name.startswith(("backbone.", "embed_", "norm_tokens"))}
    assert len(shared) > 20 and shared <= first_reached & second_reached
    assert first - second == {"head.weight", "head.bias"}
    assert {name.split(".")[0] for name in second - first} == {"modular", "modular_head"}
    assert second_reached == second, "everything that the second policy has is reached"
    assert first_masks["backbone.blocks.0.expand.weight"] and second_masks["backbone.blocks.0.expand.weight"]
    assert second_masks["modular.layers.0.weight"] and not second_masks["modular.router.embed.weight"]


def test_a_frozen_transformer_is_not_reached(spec: DataSpec, store: EpisodeStore) -> None:
    agent = build(spec, freeze=True)
    names = set(agent.phases[1].space.names)
    assert {name.split(".")[0] for name in names} == {"modular", "modular_head"}
    assert {id(it) for it in agent.phases[1].module.parameters()} == {
        id(value) for name, value in agent.named_parameters() if name in names
    }
    batch = sampler_of(agent, store, spec).draw().to("cpu", torch.float64)
    agent(1, batch).values.sum().backward()
    assert agent.backbone.blocks[0].expand.weight.grad is None  # type: ignore[union-attr]
    assert agent.modular_head.weight.grad is not None


@pytest.mark.parametrize("task_identity", ["none", "onehot"])
def test_the_second_policy_acts_as_it_is_trained(spec: DataSpec, store: EpisodeStore, task_identity: str) -> None:
    agent = build(spec, task_identity=task_identity, act_with="modules", return_conditioning=False).eval()
    batch = sampler_of(agent, store, spec).draw().to("cpu", torch.float64)
    features = agent(1, batch).features
    assert features is not None
    checked = 0
    for task in range(3):
        for window in range(batch.valid.shape[1]):
            if not batch.valid[task, window].all():
                continue
            agent.reset(RolloutContext(np.array([task]), np.zeros(1, np.int64)))
            for step in range(agent.window):
                row = batch.observations[task, window, step][None].float().numpy()
                found = agent.act(row, np.zeros(1, np.float32))
            expected = agent.modular_head.act(features[task, window, -1:], torch.tensor([task]))
            np.testing.assert_allclose(found, expected.detach(), atol=1e-5)
            checked += 1
    assert checked > 3


@pytest.fixture
def options(train_options: dict) -> dict:
    left_out = ("agent.hidden", "out")
    small = {**SMALL_AGENTS[DualPolicy], "policy_base": [12], "policy_gating": [8]}
    schedule = {"steps": 20, "log_every": 5, "evaluate_every": 0, "save_every": 10, "monitor_every": 0}
    return {
        **{key: value for key, value in train_options.items() if key not in left_out},
        "schedule": schedule,
        "agent": {"class_path": "DualPolicy", "init_args": small},
    }


def with_agent(options: dict, **more: object) -> dict:
    agent = {**options["agent"], "init_args": {**options["agent"]["init_args"], **more}}
    return {**options, "agent": agent}


@pytest.mark.parametrize("freeze", [True, False])
def test_one_after_the_other(options: dict, tmp_path: Path, freeze: bool) -> None:
    options = with_agent(options, order="in_turn", freeze=freeze, output_heads="per_task")
    run = train(**options, out=str(tmp_path / "run"))
    log = [row for row in read_log(run.folder) if row["kind"] == "training"]
    seen = [{key.split("/")[0] for key in row if "/loss/" in key} for row in log]
    assert seen == [{"transformer"}, {"transformer"}, {"modules"}, {"modules"}]
    rates = [row[f"{next(iter(phases))}/learning_rate"] for row, phases in zip(log, seen, strict=True)]
    np.testing.assert_allclose(rates[:2], rates[2:], err_msg="each phase has a whole schedule of learning rates")
    before, after = weights(run, 10), weights(run, 20)
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    transformer = {name for name in before if name.startswith(("backbone.", "embed_", "norm_"))}
    modules = {name for name in before if name.startswith("modular")}
    assert not modules & same and "head.weight" in same
    assert transformer <= same if freeze else not transformer & same
    fresh = train(**options, out=str(tmp_path / "again"))
    fresh.checkpoints().file(20).unlink()
    train(resume=fresh.folder)
    assert all(torch.equal(value, after[name]) for name, value in weights(fresh, 20).items())


@pytest.mark.parametrize("sharing", ["Shared", "RandomMasks"])
def test_either_is_evaluated_alone(options: dict, tmp_path: Path, sharing: str) -> None:
    run = train(**with_agent(options, output_heads="per_task"), sharing=sharing, out=str(tmp_path / "run"))
    found = {
        name: run.evaluate(Protocol(goals=3), workers=0, quiet=True, act_with=name)
        for name in ("transformer", "modules")
    }
    assert found["transformer"].episodes != found["modules"].episodes
    default = run.evaluate(Protocol(goals=3), workers=0, quiet=True)
    assert default.episodes == found["transformer"].episodes and default.source.act_with is None
    assert {path.name for path in (run.folder / "evaluations").iterdir()} == {
        "heldout-last-3.json",
        "heldout-last-modules-3.json",
    }, "the policy that acts anyway needs no name"
    for asked, shown in ((None, "transformer"), ("modules", "modules")):
        page = report([run.folder], tmp_path / "r.html", act_with=asked)
        content = json.loads(page.with_suffix(".json").read_text())
        assert content["mean_success"] == found[shown].mean_success
        assert ("played by modules" in page.read_text()) == (asked == "modules")
    page = compare(Sweep(tmp_path, {"both": [[run.folder]]}, Protocol(goals=3), {"both": {"both": "both"}}))
    content = json.loads(page.with_suffix(".json").read_text())
    assert content["methods"][0]["mean"][0] == found["transformer"].mean_success
    with pytest.raises(InputError, match="act_with is 'both'; expected one of transformer, modules"):
        run.evaluate(Protocol(goals=1), act_with="both", workers=0, quiet=True)


def test_agents_with_one_policy_say_so(train_options: dict) -> None:
    run = train(**train_options)
    with pytest.raises(InputError, match="BehaviorCloning has one policy only; found act_with='modules'"):
        run.evaluate(Protocol(goals=1), act_with="modules", workers=0, quiet=True)


@pytest.mark.parametrize("options", [{"order": "backwards"}, {"act_with": "both"}, {"policy_modules": 0}])
def test_wrong_settings_are_refused(options: dict, spec: DataSpec) -> None:
    with pytest.raises(InputError, match="expected"):
        build(spec, **options)
