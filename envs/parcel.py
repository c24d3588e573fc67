"""Policies on their way to workers: packed once, and loaded once by each worker."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from mtorl.envs.policies import Policy
from mtorl.envs.workers import WorkerPool


class Packed(NamedTuple):
    """A policy for the workers, and what tells it from others."""

    content: bytes
    token: str
    """Hash of the content."""


class Parcel(NamedTuple):
    """How workers get at a packed policy."""

    read: Callable[[], bytes]
    """Returns its content; see `WorkerPool.share`."""
    token: str

    def unpack(self) -> Policy:
        """Runs in a worker: the policy that the calling process packed a moment ago, loaded once."""
        global _unpacked
        if _unpacked[0] != self.token:
            import pickle

            _unpacked = (self.token, pickle.loads(self.read()))
        return _unpacked[1]


_unpacked: tuple[str, Any] = ("", None)


def pack(policy: Policy) -> Packed:
    """A policy as bytes."""
    import cloudpickle  # by value where the class lives in the user's script

    content: bytes = cloudpickle.dumps(policy)
    return Packed(content, hashlib.sha256(content).hexdigest())


@contextmanager
def lent(packed: Packed, pool: WorkerPool) -> Iterator[Parcel]:
    """What a pool's workers are given instead of the policy, inside the block."""
    with pool.share(packed.content) as read:
        yield Parcel(read, packed.token)
