"""Where jobs are done that several processes share: episodes that are played, and the runs of a sweep."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

from mtorl import InputError, checks
from mtorl.envs.workers import WorkerPool

EngineName = Literal["local", "ray"]
_chosen: ContextVar[tuple[EngineName, str | None]] = ContextVar("engine", default=("local", None))


@contextmanager
def engine(engine: EngineName = "local", address: str | None = None) -> Iterator[None]:
    """Chooses where `collect`, `evaluate` and `ablate` work inside the block; training stays in its own process.

    Args:
        engine: Whose workers do the work: processes of this machine (local), or Ray's (ray), started on this machine,
            or those of a cluster.
        address: Of a running Ray cluster, host:port, or auto for the one that this machine belongs to. Its machines
            share the folder that the command is given in, and those of data and runs.

    Raises:
        InputError: There is no such engine, or it cannot be used here.
    """
    checks.one_of("engine", engine, EngineName)
    if engine == "local" and address is not None:
        raise InputError(f"--address {address} is for --engine ray; found --engine local. Add one or leave one out.")
    if engine == "ray":
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise InputError(
                "--engine ray under torchrun: each of its processes would begin the same work. Give the command "
                "without torchrun; Ray spreads it."
            )
        from mtorl.envs.ray_pool import load_ray

        load_ray()
    before = _chosen.set((engine, address))
    try:
        yield
    finally:
        _chosen.reset(before)


def open_pool(workers: int) -> WorkerPool:
    """Workers of the chosen engine, for a `with` block.

    Args:
        workers: Jobs at a time; 0 runs everything in the calling process.
    """
    name, address = _chosen.get()
    if name == "local":
        return WorkerPool(workers)
    from mtorl.envs.ray_pool import RayPool

    return RayPool(workers, address)
