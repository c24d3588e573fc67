"""Masks of another run, fixed: does it matter how masks come about, or only what they are?"""

import torch

from mtorl import InputError
from mtorl.agents.parameters import ParameterSpace
from mtorl.trainers.sharing.masks import TaskMasks


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
        """Reads the masks.

        Raises:
            InputError: The file cannot be read, or its masks are of another network or other tasks.
        """
        super().init(space, tasks, generator)
        found = read_masks(self.file)
        shapes = {name: list(value.shape[1:]) for name, value in found.items()}
        counts = {len(value) for value in found.values()}
        self._check(shapes, counts.pop() if len(counts) == 1 else -1, f"the masks in {self.file}")
        for name, place in self.places.items():
            self.masks[:, place.mine] = found[name].roll(-self.rotate, 0).flatten(1)


def read_masks(file: str) -> dict[str, torch.Tensor]:
    """Masks bool `[T, *shape]` by the matrix's name, from a file of `mtorl masks RUN --export FILE`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file} cannot be read as exported masks: {error}. Write it with `mtorl masks RUN --export {file}`."
        ) from None
    odd = [name for name, value in found.items() if value.ndim != 3 or value.dtype != torch.bool]
    if odd or not found:
        raise InputError(f"{file} holds no masks: expected bool [tasks, rows, columns], found {odd or 'nothing'}.")
    return found
