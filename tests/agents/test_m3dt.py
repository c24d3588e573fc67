from pathlib import Path

import numpy as np
import pytest
import torch
from families import SMALL_AGENTS, sampler_of
from torch import Tensor

from mtorl import InputError
from mtorl.agents import M3DT, DecisionTransformer
from mtorl.agents.m3dt import BACKBONE, EXPERTS, ROUTER, Experts
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.base import RolloutContext
from mtorl.envs.protocol import Protocol
from mtorl.runs.training import train
from mtorl.trainers.groupers import AgreementKMeans
from mtorl.trainers.logs import read_log

GROUPS = [["towards-0", "away-0"], ["towards-2"]]
PLAIN = {"width": 16, "layers": 2, "attention_heads": 2, "context": 6, "dropout": 0.0}


def build(spec: DataSpec, **options: object) -> M3DT:
    torch.manual_seed(0)
    return M3DT(spec, **{**SMALL_AGENTS[M3DT], **options}).double()


def batch_of(agent: DecisionTransformer, store: EpisodeStore) -> TaskBatch:
    return sampler_of(agent, store, agent.spec).draw().to("cpu", torch.float64)


def experts_of(agent: M3DT) -> list[Experts]:
    return [part for part in agent.modules() if isinstance(part, Experts)]


def disturb(value: Tensor) -> None:
    with torch.no_grad():
        value.add_(torch.randn_like(value))


def test_the_first_stage_is_a_plain_decision_transformer(spec: DataSpec, store: EpisodeStore) -> None:
    agent = build(spec)
    torch.manual_seed(0)
    plain = DecisionTransformer(spec, **PLAIN).double()
    batch = batch_of(agent, store)
    torch.testing.assert_close(agent(BACKBONE, batch).values, plain(0, batch).values)
    for experts in experts_of(agent):
        for value in experts.parameters():
            disturb(value)
    torch.testing.assert_close(agent(BACKBONE, batch).values, plain(0, batch).values)


def test_a_task_learns_with_the_expert_of_its_group_alone(spec: DataSpec, store: EpisodeStore) -> None:
    agent = build(spec)
    batch = batch_of(agent, store)
    before = agent(EXPERTS, batch).values
    own = experts_of(agent)[0].own
    second = (own.expand.weight.unflatten(0, (2, 8))[1], own.contract.weight.unflatten(1, (2, 8))[:, 1], own.bias[1])
    for value in second:
        disturb(value)
    after = agent(EXPERTS, batch).values
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    assert abs(float(after[1] - before[1])) > 1e-3
    for experts in experts_of(agent):
        for value in experts.router.parameters():
            disturb(value)
    torch.testing.assert_close(agent(EXPERTS, batch).values, after)


def test_a_router_that_is_sure_is_one_expert(spec: DataSpec, store: EpisodeStore) -> None:
    agent = build(spec)
    batch = batch_of(agent, store)
    for experts in experts_of(agent):
        disturb(experts.own.bias)
        with torch.no_grad():
            experts.router[2].bias.copy_(torch.tensor([0.0, 1e4]))  # type: ignore[operator, union-attr]
    torch.testing.assert_close(agent(ROUTER, batch).values[1], agent(EXPERTS, batch).values[1])
    assert not torch.allclose(agent(ROUTER, batch).values[0], agent(EXPERTS, batch).values[0])


def test_stages_move_only_their_part(spec: DataSpec, store: EpisodeStore) -> None:
    agent = build(spec)
    batch = batch_of(agent, store)
    parts = [set(phase.space.names) for phase in agent.phases]
    assert not parts[0] & parts[1] and not parts[1] & parts[2] and not parts[0] & parts[2]
    assert all(".experts.own." in name for name in parts[EXPERTS])
    assert all(".experts.router." in name for name in parts[ROUTER])
    for stage, mine in enumerate(parts):
        agent.zero_grad()
        agent(stage, batch).values.sum().backward()
        reached = {name for name, value in agent.named_parameters() if value.grad is not None and value.grad.any()}
        assert reached and reached <= mine


def test_a_run_goes_through_all_stages_and_is_played(train_options: dict, tmp_path: Path) -> None:
    options = {key: value for key, value in train_options.items() if key != "agent.hidden"}
    options |= {"schedule": {"steps": 20, "log_every": 2, "evaluate_every": 0, "save_every": 1, "monitor_every": 4}}
    options |= {"agent": {"class_path": "M3DT", "init_args": SMALL_AGENTS[M3DT]}, "keep": 100}
    run = train(**options)
    states = {step: run.checkpoints().load(str(step))["agent"] for step in (10, 16, 20)}
    assert [int(states[step]["stage"]) for step in states] == [BACKBONE, EXPERTS, ROUTER]
    moved = [
        {name for name in states[10] if not torch.equal(states[one][name], states[other][name])} - {"stage"}
        for one, other in ((10, 16), (16, 20))
    ]
    assert moved[0] and all(".experts.own." in name for name in moved[0])
    assert moved[1] and all(".experts.router." in name for name in moved[1])
    routes = {row["step"]: row for row in read_log(run.folder) if row["kind"] == "routing"}
    assert set(routes) == {12, 16}, "nothing is mixed before there are experts"
    returns = [
        tuple(row.mean_return for row in run.evaluate(Protocol(goals=1), checkpoint=it, workers=0, quiet=True).tasks())
        for it in ("10", "16", "last")
    ]
    assert len(set(returns)) == 3, "every stage plays with what it has learned"
    run.checkpoints().file(20).unlink()
    train(resume=run.folder)
    again = run.checkpoints().load()["agent"]
    assert all(torch.equal(value, again[name]) for name, value in states[20].items())


def test_routers_need_no_task_and_experts_do(spec: DataSpec) -> None:
    agent = build(spec, task_identity="none", return_conditioning=False).float()
    hidden = RolloutContext(None, np.arange(2))
    for stage, allowed in ((BACKBONE, True), (EXPERTS, False), (ROUTER, True)):
        agent.stage.fill_(stage)
        assert agent.needs_task != allowed
        if allowed:
            agent.reset(hidden)
            assert agent.act(np.zeros((2, 4), np.float32), np.zeros(2, np.float32)).shape == (2, 2)
        else:
            with pytest.raises(InputError, match="task's identity"):
                agent.reset(hidden)


def test_groups_come_from_the_grouping_of_a_run(train_options: dict, store: EpisodeStore) -> None:
    run = train(**{**train_options, "schedule": {"steps": 5, "evaluate_every": 0}})
    grouping = run.group(AgreementKMeans(batches=2), 2)
    names = np.array(grouping.task_names)
    groups = [names[np.array(grouping.labels) == label].tolist() for label in range(2)]
    agent = build(run.spec, groups=groups)
    assert agent.groups.int().argmax(1).tolist() == list(grouping.labels)


def test_every_stage_needs_steps(train_options: dict) -> None:
    options = {key: value for key, value in train_options.items() if key not in ("agent.hidden", "schedule")}
    options |= {"agent": {"class_path": "M3DT", "init_args": SMALL_AGENTS[M3DT]}, "schedule.steps": 3}
    with pytest.raises(InputError, match=r"with 3 steps the phases \['experts'\] would have none"):
        train(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [["towards-0"], ["towards-2"]]}, "Look at away-0"),
        ({"groups": [*GROUPS, ["away-0"]]}, "Look at away-0"),
        ({"groups": [*GROUPS, ["reach"]]}, "Look at reach"),
        ({"groups": [["towards-0", "away-0 towards-2"]]}, "Look at away-0, away-0 towards-2, towards-2"),
        ({"groups": [*GROUPS, []]}, "Look at the empty group"),
        ({"backbone_until": 0.9}, "backbone_until is 0.9"),
        ({"units": 0}, "units is 0; expected at least 1"),
        ({"task_gain": True}, "leave ffn and task_gain out"),
        ({"ffn": "soft_modules"}, "leave ffn and task_gain out"),
    ],
)
def test_wrong_settings_are_refused(options: dict, message: str, spec: DataSpec) -> None:
    with pytest.raises(InputError, match=message):
        build(spec, **options)


def test_routing_is_that_of_the_stage(spec: DataSpec, store: EpisodeStore) -> None:
    agent = build(spec)
    batch = batch_of(agent, store)
    assert agent.routing(batch) == []
    agent.stage.fill_(EXPERTS)
    for layer in agent.routing(batch):
        assert layer.tolist() == [[1, 0], [0, 1], [1, 0]]
    agent.stage.fill_(ROUTER)
    found = agent.routing(batch)
    assert len(found) == 2
    for layer in found:
        torch.testing.assert_close(layer.sum(-1), torch.ones(3).double())
