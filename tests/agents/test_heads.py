import pytest
import torch

from mtorl import InputError
from mtorl.agents.heads import RegressionHead


def test_linear_heads_are_clipped_when_acting_and_linear_in_the_loss() -> None:
    head = RegressionHead(2, 1, 2, "linear")
    head.weight.data[:] = torch.tensor([[[3.0], [0.0]], [[0.0], [-5.0]]])
    features = torch.ones(2, 1, 1, 2)
    losses = head.losses(features, torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, dtype=torch.bool), torch.arange(2))
    assert losses.tolist() == [9.0, 25.0]
    assert head.act(torch.ones(2, 2), torch.tensor([1, 0])).flatten().tolist() == [-1.0, 1.0]
    assert head.linear and head.per_task and len(head.task_rows()) == 2
    assert not RegressionHead(2, 1, 2, "per_task").linear and not RegressionHead(2, 1, 2).task_rows()


def test_unknown_heads_are_refused() -> None:
    with pytest.raises(InputError, match="output_heads is 'none'; expected one of shared, per_task, linear"):
        RegressionHead(2, 1, 2, "none")  # type: ignore[arg-type]
