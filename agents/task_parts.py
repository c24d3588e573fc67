"""What a policy has of every task: the vector that tells it which one, and factors on what layers give."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

TaskIdentity = Literal["none", "onehot", "embed"]


class TaskEncoder(nn.Module):
    """A vector for each task.

    Args:
        kind: `none` (no vector), `onehot`, or `embed` (a learned table).
        tasks: T.
        width: Size of a learned vector.

    Attributes:
        size: Size of the vectors: 0, T or `width`.
    """

    def __init__(self, kind: TaskIdentity, tasks: int, width: int = 32) -> None:
        super().__init__()
        self.identity: Tensor
        self.kind = kind
        self.size = {"none": 0, "onehot": tasks, "embed": width}[kind]
        self.table = nn.Parameter(torch.randn(tasks, width) * width**-0.5) if kind == "embed" else None
        one_hot = np.eye(
            tasks, tasks if kind == "onehot" else 0
        )  # not torch.eye: without numbers, as `check_memory` looks at agents, it loads torch's compiler
        self.register_buffer("identity", torch.tensor(one_hot, dtype=torch.get_default_dtype()), False)

    def task_rows(self) -> list[nn.Parameter]:
        """Parameters whose first axis is the task."""
        return [] if self.table is None else [self.table]

    def forward(self, task_ids: Tensor) -> Tensor:
        """Vectors `[..., size]` for ids of any shape `[...]`."""
        return (self.identity if self.table is None else self.table)[task_ids]


class TaskGains(nn.Module):
    """A factor of each task for every output of some shared layers; all one at first.

    Args:
        tasks: T.
        sizes: Outputs of each layer.
    """

    def __init__(self, tasks: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.values = nn.ParameterList([torch.ones(tasks, size) for size in sizes])

    def task_rows(self) -> list[nn.Parameter]:
        """Parameters whose first axis is the task."""
        return list(self.values)

    def forward(self, task_ids: Tensor) -> list[Tensor]:
        """The factors `[T, size]` of these tasks `[T]` for each layer."""
        return [value[task_ids] for value in self.values]
