from pathlib import Path

import numpy as np
import pytest
import torch

from mtorl.trainers import train
from mtorl.trainers.gradients import TaskGradients
from mtorl.trainers.logs import read_log
from mtorl.trainers.monitor import conflicts, cosines

NAMES = ["a", "b", "c"]


def test_conflicts_by_hand() -> None:
    rows = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, -1.0]])
    found = conflicts(TaskGradients(torch.ones(3), rows, torch.arange(3)), NAMES)
    assert found["negative_pairs"] == pytest.approx(2 / 3)
    assert found["norm"] == pytest.approx({"a": 2, "b": 3, "c": 2**0.5})
    half = -round(0.5**0.5, 4)
    assert found["cosines"] == [[1, 0, half], [0, 1, half], [half, half, 1]]
    assert found["mean_cosine"] == pytest.approx(2 * half / 3, abs=1e-4)


def test_a_vanished_gradient_and_a_single_task() -> None:
    assert cosines(torch.diag(torch.tensor([1.0, 0.0]).double())).tolist() == [[1, 0], [0, 0]]
    rows = torch.ones(1, 2)
    assert conflicts(TaskGradients(torch.ones(1), rows, torch.arange(1)), ["a"])["negative_pairs"] == 0


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
