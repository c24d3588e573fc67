"""Checkpoints: written atomically, read without running anything that they contain."""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mtorl import InputError
from mtorl.datasets.files import check_schema, write_atomically

SCHEMA = 1
BEST = "best_on_training_goals.pt"


def restore(agent: nn.Module, weights: dict[str, Tensor]) -> None:
    """Gives an agent the weights of a checkpoint.

    Raises:
        InputError: They are of another agent than the configuration describes.
    """
    try:
        agent.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).split(": ", 1)[-1]
        raise InputError(
            f"the checkpoint's weights do not fit {type(agent).__name__}: {reason} It was written by another version "
            "of mtorl, or changed. Use that version, or train again."
        ) from error


class CheckpointFolder:
    """The checkpoints of one run: the last few, and the best on training goals.

    Args:
        path: The folder.
        keep: How many of the last ones to keep.
    """

    def __init__(self, path: Path, keep: int = 2) -> None:
        if keep < 1:
            raise InputError(f"keep is {keep}; expected at least 1 checkpoint to keep.")
        self.path, self.keep = path, keep

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        numbers = [file.stem.removeprefix("step_") for file in self.path.glob("step_*.pt")]
        return sorted(int(number) for number in numbers if number.isdigit())

    def save(self, step: int, state: dict[str, Any], best: bool = False) -> None:
        """Writes a checkpoint, then removes the oldest ones beyond `keep`."""
        buffer = io.BytesIO()  # torch.save would hide a full disk behind an error of its own
        torch.save({"schema": SCHEMA, "step": step, **state}, buffer)
        if best:  # first: the other one says that this has been done
            write_atomically(self.path / BEST, lambda file: file.write(buffer.getbuffer()))
        write_atomically(self.file(step), lambda file: file.write(buffer.getbuffer()))
        for old in self.steps()[: -self.keep]:
            self.file(old).unlink(missing_ok=True)

    def load(self, which: str = "last") -> dict[str, Any]:
        """The content of a checkpoint; see `read`."""
        return self.read(which)[0]

    def read(self, which: str = "last") -> tuple[dict[str, Any], str]:
        """Reads a checkpoint.

        Args:
            which: `last`, `best` (on training goals), or a step.

        Returns:
            Its content and the sha256 of the very bytes that were read: a training run may replace the file meanwhile.

        Raises:
            InputError: There is none, it cannot be read, or a newer version wrote it.
        """
        file = self.file(which)
        if not file.exists():
            why = " (written by evaluations on training goals, schedule.evaluate_every)" if which == "best" else ""
            raise InputError(f"no checkpoint {which}{why} in {self.path}; the steps there are {self.steps()}.")
        try:
            data = file.read_bytes()
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged or foreign file
            others = [step for step in self.steps() if self.file(step) != file]
            remedy = f" Delete it to go on from step {others[-1]}." if others else " There is no other; train again."
            raise InputError(
                f"{file} cannot be read as a checkpoint: {str(error).splitlines()[0].rstrip('.')}.{remedy}"
            ) from error
        check_schema(content, SCHEMA, str(file))
        return content, hashlib.sha256(data).hexdigest()

    def file(self, which: str | int) -> Path:
        """The file of a checkpoint: `last`, `best`, or a step; it need not exist."""
        if which == "best":
            return self.path / BEST
        if which == "last":
            if not self.steps():
                raise InputError(f"no checkpoint in {self.path}: nothing was saved yet. Train first.")
            which = self.steps()[-1]
        if not str(which).isdigit():
            raise InputError(f"unknown checkpoint {which!r}; expected last, best or a step.")
        return self.path / f"step_{int(which):09d}.pt"
