from pathlib import Path

import numpy as np
import pytest
import torch

from mtorl.envs.protocol import Protocol
from mtorl.reports.run_report import report
from mtorl.runs.training import train
from mtorl.trainers.gradients import TaskGradients
from mtorl.trainers.logs import read_log
from mtorl.trainers.monitor import conflicts, cosines, routing

NAMES = ["a", "b", "c"]


def test_conflicts_by_hand() -> None:
    rows = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, -1.0]])
    found = conflicts(7, "policy", TaskGradients(torch.ones(3), rows, torch.arange(3)), NAMES).plain()
    assert found["step"] == 7 and found["phase"] == "policy" and found["tasks"] == NAMES
    assert found["negative_pairs"] == pytest.approx(2 / 3)
    assert found["norm"] == pytest.approx({"a": 2, "b": 3, "c": 2**0.5})
    half = -round(0.5**0.5, 4)
    assert found["cosines"] == [[1, 0, half], [0, 1, half], [half, half, 1]]
    assert found["mean_cosine"] == pytest.approx(2 * half / 3, abs=1e-4)


def test_routing_by_hand() -> None:
    matrices = torch.tensor([[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]])  # t i n
    last = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    found = routing(7, [matrices, last], ["a", "b"]).plain()
    sharp = -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75))
    assert found["entropy"] == pytest.approx({"a": (0 + 1 + 0) / 3, "b": (0 + 1 + sharp) / 3})
    distance = round((1 + 0 + 0.75) / 3, 4)
    assert found["distances"] == [[0, distance], [distance, 0]]
    assert (found["probabilities/1"], found["probabilities/2"]) == (matrices.flatten(1).tolist(), last.tolist())
    assert routing(7, [torch.ones(2, 1)], ["a", "b"]).entropy == {"a": 0, "b": 0}, "a single module"


def test_routing_is_recorded_and_drawn(train_options: dict, tmp_path: Path) -> None:
    small = {"width": 8, "base": [12], "gating": [8]}
    options = {key: value for key, value in train_options.items() if key != "agent.hidden"}
    schedule = {"steps": 20, "monitor_every": 10, "evaluate_every": 0}
    run = train(
        **{**options, "schedule": schedule, "tasks_per_batch": 2},
        agent={"class_path": "SoftModular", "init_args": small},
    )
    records = [row for row in read_log(run.folder) if row["kind"] == "routing"]
    assert [row["step"] for row in records] == [0, 10] and all(len(row["distances"]) == 2 for row in records)
    run.evaluate(Protocol(goals=1), workers=0, quiet=True)
    assert "Routing through modules" in report([run.folder], tmp_path / "r.html").read_text()


def test_a_vanished_gradient_and_a_single_task() -> None:
    assert cosines(torch.diag(torch.tensor([1.0, 0.0]).double())).tolist() == [[1, 0], [0, 0]]
    rows = torch.ones(1, 2)
    assert conflicts(0, "policy", TaskGradients(torch.ones(1), rows, torch.arange(1)), ["a"]).negative_pairs == 0


@pytest.mark.parametrize("balancer", ["Equal", "PCGrad"])
def test_monitoring_does_not_change_training(balancer: str, train_options: dict, tmp_path: Path) -> None:
    weights = []
    for number, every in enumerate((0, 7)):
        options = {
            **train_options,
            "out": str(tmp_path / str(number)),
            "balancer": balancer,
            "agent.output_heads": "per_task",
        }
        run = train(**{**options, "schedule": {"steps": 20, "monitor_every": every, "evaluate_every": 0}})
        weights.append(run.checkpoints().load()["agent"])
        records = [row for row in read_log(run.folder) if row["kind"] == "conflicts"]
        assert [row["step"] for row in records] == ([0, 7, 14] if every else [])
        for row in records:
            assert np.array(row["cosines"]).shape == (3, 3) and list(row["norm"]) == row["tasks"]
            np.testing.assert_allclose(np.diag(row["cosines"]), 1, atol=1e-3)
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name])
