"""One harmony mask for each group of tasks (G-HarmoDT). Reconstructed from the abstract."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtorl import InputError, checks
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets.grouping import Grouping, same_groups
from mtorl.datasets.sampler import TaskSampler
from mtorl.schema import State
from mtorl.trainers.sharing.group_gate import GroupGate
from mtorl.trainers.sharing.harmony_masks import HarmonyMasks


class GroupMasks(HarmonyMasks):
    """Tasks of a group compute with the same mask, which moves by the mean of their gradients.

    Where the task is hidden, a gate finds the group from the first steps of an episode or from a demonstration. It is
    fitted when training ends.

    Groups are those of the run (`--grouping`), or come from a file of its own; either is made by `mtorl group RUN
    --groups 3 --out FILE` and must know all tasks of the run. Gradients of tasks have length one before they are
    averaged, so that no task speaks for its group alone.

    Source: Hu et al., Task-Aware Harmony Multi-Task Decision Transformer, 2024 (abstract).

    Args:
        grouping: A file of its own; by default the groups of the run.
        gate_steps: Steps from which the gate finds the group; 0: there is no gate.
        options: Of `HarmonyMasks`, where "a task" is a group.
    """

    def __init__(self, grouping: str | None = None, gate_steps: int = 10, **options: Any) -> None:
        super().__init__(**options)
        checks.at_least(0, gate_steps=gate_steps)
        self.grouping, self.gate_steps = grouping, gate_steps
        self.concluding = gate_steps
        self._gate: GroupGate | None = None
        self._labels: list[int] | None = None

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """See `TaskMasks.init`. Where groups are not known a checkpoint can still be loaded, which knows them.

        Raises:
            InputError: The file groups other tasks.
        """
        own = self._read(self.grouping, tasks) if self.grouping and Path(self.grouping).exists() else None
        agreed = own is None or self.groups is None or same_groups(own, self.groups)
        found = self.groups if self.groups is not None else own
        self._labels = list(found) if found is not None and agreed else None
        super().init(space, tasks, generator)

    def _read(self, file: str, tasks: int) -> list[int]:
        grouping = Grouping.load(file)
        labels = grouping.groups_of(self.task_names or grouping.task_names)
        if len(labels) != tasks:
            raise InputError(f"{file} groups {len(labels)} tasks; expected {tasks}, those of the run.")
        return list(labels)

    def _unknown(self) -> InputError:
        """Why training cannot begin: no groups, or two that differ."""
        if self.grouping is None:
            return InputError("GroupMasks has no groups: give --grouping FILE, of `mtorl group RUN --out FILE`.")
        Grouping.load(self.grouping)  # says what is missing
        return InputError(
            f"the groups in sharing.grouping ({self.grouping}) are not those of the run's --grouping, "
            f"{list(self.groups or ())} of the tasks {list(self.task_names or ())}. Leave one of the two out."
        )

    def rows(self, tasks: int) -> int:
        """One mask for each group."""
        return len(set(self._labels or []))

    def row(self, task: int) -> int:
        """The group of a task."""
        if self._labels is None:
            raise self._unknown()
        return self._labels[task]

    def by_rows(self, dense: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """The mean over each group's tasks of their scaled gradients, scaled again."""
        labels = torch.tensor(self._labels, device=dense.device)
        groups = [labels == group for group in range(len(self.masks))]
        rows = torch.stack([scale[group] @ dense[group] / int(group.sum()) for group in groups])
        return rows, self.scales(rows)

    def conclude(self, sampler: TaskSampler) -> dict[str, float]:
        """Fits the gate.

        Returns:
            `gate_accuracy`: how often it finds the group, in windows of the training data.
        """
        assert self._labels is not None
        self._gate, accuracy = GroupGate.fit(sampler, self._labels)
        return {"gate_accuracy": accuracy}

    @property
    def gate(self) -> GroupGate | None:
        """See `Sharing.gate`."""
        return self._gate

    def without_task(self, parameters: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        """The parameters of each group.

        Raises:
            InputError: There is no gate to choose among them.
        """
        if len(self.masks) > 1 and self._gate is None:
            raise InputError(
                "these group masks have no gate, which finds the group of an episode: it is fitted when training ends, "
                "unless gate_steps is 0. Use --checkpoint last of a finished run."
            )
        return [self._with(parameters, mask) for mask in self.masks]

    def get_extra_state(self) -> State:
        """The masks, which is whose, and the gate."""
        gate = self._gate.state_dict() if self._gate else None
        return super().get_extra_state() | {"labels": self._labels, "gate": gate}

    def set_extra_state(self, state: State) -> None:
        """See `get_extra_state`: the groups are those that training began with, whatever the file says now."""
        self._labels = list(state["labels"])
        self._gate = GroupGate.from_state(state["gate"]) if state.get("gate") else None
        size = self.masks.shape[1]
        if len(self.masks) != self.rows(0):
            self.masks = torch.ones(self.rows(0), size, dtype=torch.bool, device=self.masks.device)
        super().set_extra_state(state)
