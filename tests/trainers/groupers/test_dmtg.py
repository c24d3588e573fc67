"""Tasks that choose their branch, as a grouper and as an agent's network."""

import torch
from families import sampler_of

from mtorl.agents import BehaviorCloning
from mtorl.agents.networks.branches import DMTG as BranchedNetwork
from mtorl.datasets.sampler import TaskBatch
from mtorl.datasets.spec import DataSpec
from mtorl.datasets.store import EpisodeStore
from mtorl.envs.protocol import Protocol
from mtorl.runs.run import Run
from mtorl.runs.training import train
from mtorl.trainers.executions import PhaseFunctions
from mtorl.trainers.groupers import DMTG
from mtorl.trainers.sharing import Shared

NETWORK = {
    "class_path": "DMTG",
    "init_args": {"branches": 2, "stem": [12], "hidden": [8], "final_temperature": 0.5, "anneal_steps": 30},
}


class Opposites:
    """Stands for a sampler: of the tasks, the first half does what is observed, the others the opposite.

    Args:
        tasks: T.
        batch: Of which the other columns are taken.
    """

    def __init__(self, tasks: int, batch: TaskBatch) -> None:
        self.signs = torch.tensor([1.0, -1.0]).repeat_interleave(tasks // 2)
        self.batch = batch

    def draw(self) -> TaskBatch:
        shape = (len(self.signs), 16, 1)
        observations = torch.rand(*shape, 4) * 2 - 1
        actions = self.signs[:, None, None, None] * observations[..., :2]
        zero = torch.zeros(shape)
        valid = torch.ones(shape, dtype=torch.bool)
        return TaskBatch(observations, actions, zero, zero, zero.long(), valid, torch.arange(len(self.signs)))


def test_two_families_separate(store: EpisodeStore, spec: DataSpec) -> None:
    names = ("a", "b", "c", "d")
    wide = DataSpec(
        **{
            **vars(spec),
            "task_names": names,
            **{name: getattr(spec, name)[:1] * 4 for name in ("steps", "episodes", "return_quantiles")},
            **{name: getattr(spec, name)[:1] * 4 for name in ("success_rate", "success_last_rate")},
            "groups": None,
            "observation_mean": ((0.0,) * 4,) * 4,
            "observation_std": ((1.0,) * 4,) * 4,
        }
    )
    agent = BehaviorCloning(wide, hidden=(8,))
    batch = sampler_of(BehaviorCloning(spec, hidden=(8,)), store, spec).draw()
    grouper = DMTG(hidden=(32,))
    torch.manual_seed(3)
    found = grouper.fit(PhaseFunctions(agent), Shared(), Opposites(4, batch), 2)  # type: ignore[arg-type]
    assert found.labels == (0, 0, 1, 1) and found.score > 0.8
    assert found.affinity[0][1] > 0.9 > 0.6 > found.affinity[0][2]


def trained(options: dict, folder: str, steps: int) -> Run:
    """A run with a branched network."""
    agent = {"class_path": "BehaviorCloning", "init_args": {"network": NETWORK, "output_heads": "per_task"}}
    options = {key: value for key, value in options.items() if not key.startswith("agent")}
    schedule = {"steps": steps, "evaluate_every": 0, "save_every": 10, "log_every": 5}
    return train(**options | {"out": folder, "agent": agent, "schedule": schedule, "tasks_per_batch": 2})


def test_a_run_counts_resumes_and_is_played(train_options: dict) -> None:
    run = trained(train_options, train_options["out"], 20)
    whole = run.checkpoints().load()["agent"]
    assert int(whole["backbone.moves"]) == 20
    assert whole["backbone.choice.weight"].unique().numel() > 1
    run.checkpoints().file(20).unlink()
    train(resume=run.folder)
    again = run.checkpoints().load()["agent"]
    for name, value in whole.items():
        assert torch.equal(again[name], value), name
    report = run.evaluate(Protocol(goals=1), workers=0, quiet=True)
    assert len(report.tasks()) == 3
    backbone = run.policy()[0].agent.backbone
    assert isinstance(backbone, BranchedNetwork) and not backbone.training
    assert set(backbone.choices(torch.eye(3)).tolist()) <= {0, 1}


def test_losses_are_mixed_not_features(store: EpisodeStore, spec: DataSpec) -> None:
    """Each task's loss is the mean of those of an agent that has one of the branches only, with the same shares."""
    torch.manual_seed(0)
    agent = BehaviorCloning(
        spec, network=lambda *sizes: BranchedNetwork(*sizes, 2, (12,), (8,)), output_heads="per_task"
    )
    backbone = agent.backbone
    assert isinstance(backbone, BranchedNetwork)
    batch = sampler_of(agent, store, spec).draw()
    torch.manual_seed(1)
    mixed = agent(0, batch)
    assert mixed.features is None
    torch.manual_seed(1)
    shares = backbone.shares(torch.eye(3))
    alone = []
    with torch.no_grad():
        for branch in range(2):
            backbone.eval().choice.weight.zero_()
            backbone.choice.weight[branch] = 1
            alone.append(agent(0, batch).values)
    torch.testing.assert_close(mixed.values, (shares * torch.stack(alone, 1)).sum(1))
