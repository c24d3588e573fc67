"""Where a run takes place: what is noted of the machine, and what it is allowed to use of it."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

from mtorl import InputError, __version__
from mtorl.schema import Document, Integer, ListOf, MappingOf, Nullable, Record, Text

MACHINE = Record(
    {
        "mtorl": Text(),
        "command": ListOf(Text()),
        "python": Text(),
        "platform": Text(),
        "processors": Nullable(Integer(1)),
        "versions": MappingOf(Text()),
    },
    optional={"threads": Integer(1, 4096), "grouping": Record({"path": Text(), "sha256": Text()})},
)
"""What a run's run.json must hold; the first versions did not note the threads.

Runs of several models note none, runs that were given a grouping note its file.
"""
PACKAGES = ("torch", "numpy", "scipy", "gymnasium", "metaworld", "mujoco", "einops", "jsonargparse", "tensorboard")


def describe_machine(command: Sequence[str] = ()) -> Document:
    """Versions, machine and command, for `run.json`."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "mtorl": __version__,
        "command": list(command),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "versions": versions,
    }


@contextmanager
def limited_threads(count: int | None) -> Iterator[None]:
    """Threads of torch. NumPy gets one: it solves small problems, at which threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        with threadpool_limits(1, "blas"):
            yield
    finally:
        torch.set_num_threads(before)


def find_device(name: str) -> torch.device:
    """The device of that name; raises InputError if it cannot be used here."""
    try:
        place = os.environ.get("LOCAL_RANK")  # of processes that torchrun starts, each has a GPU of its own
        device = torch.device(f"cuda:{place}" if name == "cuda" and place else name)
        float(torch.zeros(1, device=device))  # meta has shapes only
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {name!r} cannot be used here: {str(error).splitlines()[0]}. Try --device cpu."
        ) from None
    return device
