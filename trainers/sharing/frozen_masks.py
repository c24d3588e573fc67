"""Masks of another run, fixed: does it matter how masks come about, or only what they are?"""

import json
from pathlib import Path

import torch

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.files import regular
from mtorl.schema import State
from mtorl.trainers.sharing.masks import TaskMasks, packed


class FrozenMasks(TaskMasks):
    """Trains with the masks that another run ended with, exported by `mtorl masks RUN --export FILE`.

    Args:
        file: The exported masks, of the same agent and as many tasks.
        rotate: Give every task the masks of the task that many places further: the same masks, but not its own.
    """

    def __init__(self, file: str, rotate: int = 0) -> None:
        super().__init__(0.0)
        self.file, self.rotate = file, rotate

    def init(self, space: ParameterSpace, tasks: int, generator: torch.Generator) -> None:
        """Reads the masks. Without the file a checkpoint can still be loaded: it holds them.

        Raises:
            InputError: The file is no file of masks, or of another network or other tasks.
        """
        super().init(space, tasks, generator)
        self._missing = not Path(self.file).exists()
        if self._missing:
            return
        masks, names, phases = read_masks(self.file)
        if phases > 1:  # each of the agent's phases takes its own
            masks = {name: mask for name, mask in masks.items() if name in self.places}
        if self.task_names is not None and names and names != self.task_names:
            raise InputError(
                f"the masks in {self.file} are of the tasks {list(names)}; expected {list(self.task_names)}. Use those "
                "of a run on the same tasks."
            )
        shapes = {name: list(mask.shape[1:]) for name, mask in masks.items()}
        counts = {len(mask) for mask in masks.values()}
        self._check(shapes, counts.pop() if len(counts) == 1 else -1, f"the masks in {self.file}")
        for name, place in self.places.items():
            self.masks[:, place.mine] = masks[name].roll(-self.rotate, 0).flatten(1)
        self._drawn = packed(self.masks)

    def row(self, task: int) -> int:
        """See `TaskMasks.row`."""
        if self._missing:
            read_masks(self.file)  # says what is missing
        return task

    def set_extra_state(self, state: State) -> None:
        """See `TaskMasks.set_extra_state`."""
        super().set_extra_state(state)
        self._missing = False


def read_masks(file: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...], int]:
    """What `mtorl masks RUN --export FILE` wrote.

    Returns:
        Masks bool `[T, *shape]` by the matrix's name, the tasks, and of how many phases the masks are.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(regular(Path(file), "exported masks"), "pt") as content:
            masks = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118  no mapping
            metadata = content.metadata() or {}
            names, phases = tuple(json.loads(metadata.get("tasks", "[]"))), int(metadata.get("phases", "1"))
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{file} cannot be read as exported masks: {error}. Write it with `mtorl masks RUN --export {file}`."
        ) from None
    odd = [name for name, mask in masks.items() if mask.ndim != 3 or mask.dtype != torch.bool]
    if odd or not masks:
        raise InputError(f"{file} holds no masks: expected bool [tasks, rows, columns], found {odd or 'nothing'}.")
    return masks, names, phases
