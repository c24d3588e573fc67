"""Policies on their way to workers: packed once, and loaded once by each worker."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mtorl.envs.policies import Policy


class Packed(NamedTuple):
    """A policy for the workers, and what tells it from others."""

    content: bytes
    token: str
    """Hash of the content."""


class Parcel(NamedTuple):
    """Where workers find a packed policy."""

    path: str
    token: str

    def unpack(self) -> Policy:
        """Runs in a worker: the policy that the calling process packed a moment ago, loaded once."""
        global _unpacked
        if _unpacked[0] != self.token:
            import pickle

            _unpacked = (self.token, pickle.loads(Path(self.path).read_bytes()))
        return _unpacked[1]


_unpacked: tuple[str, Any] = ("", None)


def pack(policy: Policy) -> Packed:
    """A policy as bytes."""
    import cloudpickle  # by value where the class lives in the user's script

    content: bytes = cloudpickle.dumps(policy)
    return Packed(content, hashlib.sha256(content).hexdigest())


@contextmanager
def sent(packed: Packed) -> Iterator[Parcel]:
    """A file from which workers load the policy once, instead of getting it with every block."""
    with tempfile.TemporaryDirectory(prefix="mtorl-") as folder:
        path = Path(folder) / "policy.pickle"
        path.write_bytes(packed.content)
        yield Parcel(str(path), packed.token)
