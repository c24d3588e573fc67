"""What a step of training sees: windows of consecutive steps, the same number for every task."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from mtorl import InputError
from mtorl.datasets.prompts import Prompt


@dataclass(frozen=True)
class TaskBatch:
    """Windows of L steps, B for each of T tasks. Padding stands at the end of a window and is zero.

    Attributes:
        observations: float32 `[T, B, L, O]`, as recorded (agents normalise).
        actions: float32 `[T, B, L, A]`.
        rewards: float32 `[T, B, L]`, undiscounted, unscaled.
        returns_to_go: float32 `[T, B, L]`, sum of this and all later rewards of the episode.
        timesteps: int64 `[T, B, L]`, step within the episode, from 0.
        valid: bool `[T, B, L]`, false where a window reaches past the end of its episode.
        task_ids: int64 `[T]`, positions in the data specification's task names.
        next_observations: float32 `[T, B, L, O]` if asked for.
        terminated: bool `[T, B, L]`, the environment itself ended the episode with this step; with `next_observations`.
        prompt: `[T, B, K, ...]`, K steps of an episode of the task, if asked for.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    returns_to_go: Tensor
    timesteps: Tensor
    valid: Tensor
    task_ids: Tensor
    next_observations: Tensor | None = None
    terminated: Tensor | None = None
    prompt: Prompt | None = None

    def __post_init__(self) -> None:
        shape = self.valid.shape
        for name in ("observations", "actions", "rewards", "returns_to_go", "timesteps"):
            if getattr(self, name).shape[:3] != shape:
                raise InputError(
                    f"TaskBatch.{name} has shape {list(getattr(self, name).shape)}; expected it to begin with "
                    f"[T, B, L] = {list(shape)} like `valid`."
                )
        if self.task_ids.shape != shape[:1]:
            raise InputError(
                f"TaskBatch.task_ids has shape {list(self.task_ids.shape)}; expected {list(shape[:1])}, one per task."
            )

    @property
    def tensors(self) -> list[Tensor]:
        """All of its tensors, those of its prompt last; each has the tasks as its first axis."""
        return [*self._columns.values(), *(self.prompt.tensors if self.prompt else ())]

    @property
    def _columns(self) -> dict[str, Tensor]:
        found = ((name, getattr(self, name)) for name in COLUMNS)
        return {name: value for name, value in found if value is not None}

    @property
    def tasks(self) -> tuple[int, ...]:
        """The ids of the tasks, where no GPU has to be asked for them: batches that were moved there remember."""
        known = vars(self.task_ids)
        if "tasks" not in known:
            self.know(tuple(self.task_ids.tolist()))
        found: tuple[int, ...] = known["tasks"]
        return found

    def know(self, tasks: Sequence[int]) -> None:
        """Keeps the ids of the tasks beside the tensor that holds them."""
        vars(self.task_ids)["tasks"] = tuple(tasks)

    def with_tensors(self, values: Iterable[Tensor]) -> "TaskBatch":
        """A batch of the same fields with other tensors, given in the order of `tensors`."""
        tensors = iter(values)
        columns = {name: next(tensors) for name in self._columns}
        return replace(self, **columns, prompt=Prompt(*tensors) if self.prompt else None)  # the prompt's come last

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "TaskBatch":
        """The same windows on another device; floating point columns in another dtype if given."""
        tasks = self.tasks
        moved = (tensor.to(device, dtype if tensor.is_floating_point() else None) for tensor in self.tensors)
        found = self.with_tensors(moved)
        found.know(tasks)
        return found

    def select(self, tasks: Sequence[int] | Tensor) -> "TaskBatch":
        """Only the tasks at these positions of the batch (not task ids)."""
        found = self.with_tensors(value[torch.as_tensor(tasks, device=value.device)] for value in self.tensors)
        found.know(np.array(self.tasks)[np.asarray(tasks)].tolist())
        return found

    def parts(self, count: int) -> "list[TaskBatch]":
        """So many batches of different windows, of the same tasks and as equal in size as can be.

        Raises:
            InputError: There are fewer windows than parts.
        """
        windows = self.valid.shape[1]
        if windows < count:
            raise InputError(
                f"a batch has {windows} windows of each task; expected at least {count}, so that it has independent "
                "parts. Raise --windows."
            )
        columns = [
            [value] * count if value is self.task_ids else value.tensor_split(count, 1) for value in self.tensors
        ]
        return [self.with_tensors(part) for part in zip(*columns, strict=True)]


COLUMNS = tuple(it.name for it in fields(TaskBatch) if it.name != "prompt")
