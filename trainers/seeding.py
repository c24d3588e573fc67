"""Named random streams from one seed. The global random state is never used to draw."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def _sequence(seed: int, name: str, *more: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(name.encode()), *more])


def numpy_stream(seed: int, name: str) -> np.random.Generator:
    """The NumPy generator of that name."""
    return np.random.default_rng(_sequence(seed, name))


def torch_stream(seed: int, name: str) -> torch.Generator:
    """The torch generator (CPU) of that name."""
    return torch.Generator().manual_seed(int(_sequence(seed, name).generate_state(1, np.uint64)[0] >> 1))


@contextmanager
def isolated(seed: int, name: str, *more: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Sets torch's global state from (seed, name, more) inside the block and restores it after.

    For the two things that take no generator: the initialisation of layers, and dropout.
    """
    number = int(_sequence(seed, name, *more).generate_state(1, np.uint64)[0] >> 1)
    if torch.device(device).type == "cuda":
        with torch.random.fork_rng(devices=[torch.device(device)]):
            torch.manual_seed(number)
            yield
        return
    generator = torch.default_generator  # torch.manual_seed formats a traceback for devices that are not in use
    kept = generator.get_state()
    try:
        generator.manual_seed(number)
        yield
    finally:
        generator.set_state(kept)
