"""Checkpoints: written atomically, read without running anything that they contain."""

import hashlib
import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from mtorl import InputError
from mtorl.files import regular, write_atomically
from mtorl.schema import Flag, Integer, MappingOf, Number, Opaque, Record, State, check, check_version

SCHEMA = 1
BEST = "best_on_training_goals.pt"
CHECKPOINT = Record(
    {
        "schema": Integer(1),
        "step": Integer(0),
        "config": Opaque(),
        "agent": Opaque(),
        "balancers": MappingOf(Opaque()),
        "sharing": MappingOf(Opaque()),
        "optimizers": MappingOf(Opaque()),
        "sampler": Opaque(),
        "probe": Opaque(),
        "evaluated": Integer(0),
        "best": Number(),
        "sums": MappingOf(Number()),
        "counts": MappingOf(Integer(1)),
        "log_bytes": Integer(0),
    },
    optional={"concluded": Flag()},
)
"""What `OfflineTrainer.state_dict` gives, with the step; `concluded` came later."""


@contextmanager
def fitting(what: str, whose: str) -> Iterator[None]:
    """Turns what goes wrong while a part of a checkpoint is given back into one error.

    Args:
        what: The part, plural.
        whose: Class of the object that gets it.

    Raises:
        InputError: The part is of another object than the configuration describes.
    """
    try:
        yield
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        text = " ".join(str(error).split()).split(": ", 1)[-1].rstrip(".")
        reason = f"it lacks {text}" if isinstance(error, KeyError) else text
        raise InputError(
            f"the checkpoint's {what} do not fit {whose}: {reason}. It was written by another version of mtorl, or "
            "changed. Use that version, or train again."
        ) from error


def restore(agent: nn.Module, weights: dict[str, Tensor]) -> None:
    """Gives an agent the weights of a checkpoint.

    Raises:
        InputError: They are of another agent than the configuration describes.
    """
    with fitting("weights", type(agent).__name__):
        agent.load_state_dict(weights)


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

    def save(self, step: int, state: State, best: bool = False) -> None:
        """Writes a checkpoint, then removes the oldest ones beyond `keep`."""
        buffer = io.BytesIO()  # torch.save would hide a full disk behind an error of its own
        torch.save({"schema": SCHEMA, "step": step, **state}, buffer)
        if best:  # first: the other one says that this has been done
            write_atomically(self.path / BEST, lambda file: file.write(buffer.getbuffer()))
        write_atomically(self.file(step), lambda file: file.write(buffer.getbuffer()))
        for old in self.steps()[: -self.keep]:
            self.file(old).unlink(missing_ok=True)

    def load(self, which: str = "last") -> State:
        """The content of a checkpoint; see `read`."""
        return self.read(which)[0]

    def read(self, which: str = "last") -> tuple[State, str]:
        """Reads a checkpoint.

        Args:
            which: `last`, `best` (on training goals), or a step.

        Returns:
            Its content and the sha256 of the very bytes that were read: a training run may replace the file meanwhile.

        Raises:
            InputError: There is none, it is damaged or no checkpoint, or a newer version wrote it.
        """
        file = self.file(which)
        if not file.exists():
            why = " (written by evaluations on training goals, schedule.evaluate_every)" if which == "best" else ""
            raise InputError(f"no checkpoint {which}{why} in {self.path}; the steps there are {self.steps()}.")
        data = regular(file, "the checkpoint").read_bytes()
        try:
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged or foreign file
            raise InputError(
                f"{file} cannot be read as a checkpoint: it is damaged, or is no checkpoint of mtorl "
                f"({_reason(data, error)}). {self._remedy(file)}"
            ) from error
        check_version(content, SCHEMA, str(file))
        check(content, CHECKPOINT, f"{file}, which is damaged or is no checkpoint of mtorl,", self._remedy(file))
        return content, hashlib.sha256(data).hexdigest()

    def _remedy(self, file: Path) -> str:
        """What to do about a checkpoint that cannot be used."""
        others = [step for step in self.steps() if self.file(step) != file]
        return f"Delete it to go on from step {others[-1]}." if others else "There is no other; train again."

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


def _reason(data: bytes, error: Exception) -> str:
    """Why a file could not be loaded, in our own words: torch's advice is to trust the file."""
    if not data:
        return "it is empty"
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return "it was cut off, or is another kind of file"
    if isinstance(error, UnpicklingError):
        return "it holds more than tensors and plain values, which is never loaded"
    return "its content is incomplete"
