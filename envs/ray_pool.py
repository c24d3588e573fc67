"""Workers that Ray starts, on this machine or on those of a cluster. Extra `ray`.

Each job is a Ray task of one processor and one thread. Workers keep their environments between jobs, as local processes
do; what is shared with all of them lies in Ray's object store. Everything else goes through files: a cluster needs a
folder that all of its machines see at the same path.
"""

import logging
import os
import pickle
import socket
import sys
import traceback
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from mtorl import InputError
from mtorl.envs.workers import ONE_THREAD, WORKERS, WorkerPool, call_packed
from mtorl.interrupts import interrupts_later

ATTEMPTS = 4
"""How often a job is begun whose worker dies each time."""
PATIENCE = 10.0
"""Seconds that a cluster has to answer; Ray itself would ask for minutes."""

_shared: dict[str, Any] = {}


class RayPool(WorkerPool):
    """A pool of Ray's workers. If one of them dies, its job is done again by another one.

    Ray is started with the first job, or joined, and left when the pool is closed. A program that has called
    `ray.init` itself keeps its connection.

    Args:
        workers: Jobs at a time; 0 runs everything in the calling process.
        address: Of a running cluster, host:port, or auto for the one that this machine belongs to. By default Ray is
            started on this machine, for this pool alone.

    Raises:
        InputError: Ray is not installed.
    """

    def __init__(self, workers: int, address: str | None = None) -> None:
        super().__init__(workers, WORKERS if address is None else "[0, inf)")
        self._ray, self._address = load_ray(), address
        self._connected = False
        self._lent: dict[str, Any] = {}
        self._running: dict[Any, tuple[bytes, int]] = {}

    def run(self, function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """See `WorkerPool.run`.

        Raises:
            InputError: The cluster cannot be reached; a job's worker died again and again; or a machine of the cluster
                lacks the folder or the package.
            Exception: What a job raised; a RuntimeError with its text if it cannot be sent here.
        """
        if not self.workers:
            yield from super().run(function, jobs)
            return
        import cloudpickle  # by value where a function or class lives in the user's script

        packed = (cloudpickle.dumps((function, job)) for job in jobs)
        try:
            self._connect()
            while True:
                for content in islice(packed, self.workers - len(self._running)):
                    self._submit(content)
                if not self._running:
                    return
                yield from self._finished()
        except BaseException:
            self.close()  # an interrupted or failed run: stop what is still being played
            raise

    @contextmanager
    def share(self, content: bytes) -> Iterator[Callable[[], bytes]]:
        """See `WorkerPool.share`."""
        if not self.workers:
            with super().share(content) as read:
                yield read
            return
        self._connect()
        name = uuid.uuid4().hex
        self._lent[name] = self._ray.put(content)
        try:
            yield partial(_borrow, name)
        finally:
            self._lent.pop(name, None)

    def close(self) -> None:
        """Stops what is being done at once, and leaves Ray."""
        super().close()
        self._lent.clear()
        if self._ray.is_initialized():
            for reference in self._running:
                self._ray.cancel(reference, force=True)
            if self._connected:
                self._ray.shutdown()
        self._running.clear()
        self._connected = False

    def _submit(self, content: bytes, deaths: int = 0) -> None:
        """Has a job done.

        Args:
            content: The job.
            deaths: How many workers have died of it so far.
        """
        work = self._ray.remote(num_cpus=1, max_retries=0, runtime_env={"env_vars": ONE_THREAD})(_work)
        self._running[work.remote(content, str(Path.cwd()), sys.path, self._lent)] = content, deaths

    def _finished(self) -> Iterator[Any]:
        """Waits for a job; yields its result, nothing if its worker died and it was given to another one."""
        from ray import exceptions

        (reference,), _ = self._ray.wait(list(self._running), num_returns=1)
        content, deaths = self._running.pop(reference)
        try:
            value, error, trace = pickle.loads(self._ray.get(reference))  # packed by `_work`
        except (exceptions.WorkerCrashedError, exceptions.NodeDiedError, exceptions.ObjectLostError) as lost:
            self._again(content, deaths + 1, "a worker died", lost)
        except exceptions.OutOfMemoryError as lost:
            self._again(content, deaths + 1, "Ray ended a worker because the memory of its machine was full", lost)
        except exceptions.RayError as failed:
            raise InputError(
                f"Ray could not do a job: {_last_line(failed)}. On a cluster, each machine needs Python and mtorl in "
                "the versions of this one, and your own modules where they can be imported."
            ) from None
        else:
            if error is not None:
                raise error from RuntimeError(f"in a worker:\n{trace}")
            yield value

    def _again(self, content: bytes, deaths: int, what: str, lost: Exception) -> None:
        if deaths >= ATTEMPTS:
            raise InputError(
                f"{what}, {deaths} times with the same job: {str(lost).splitlines()[0]} Often the memory is full: try "
                "fewer --workers. What is finished was saved; the same command continues."
            ) from None
        warnings.warn(f"{what}; its job is done again by another one.", stacklevel=2)
        self._submit(content, deaths)

    def _connect(self) -> None:
        """Starts Ray on this machine, or joins the cluster, unless that has been done.

        Raises:
            InputError: That fails.
        """
        if self._ray.is_initialized():
            return
        if self._address is not None:
            _check_reachable(self._address)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        here = {"num_cpus": self.workers, "include_dashboard": False}
        where = {"address": "local", **here} if self._address is None else {"address": self._address}
        try:
            # half of a start cannot be taken back
            with interrupts_later() if self._address is None else nullcontext():
                self._ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except (Exception, SystemExit) as error:
            self._ray.shutdown()
            raise InputError(
                f"Ray cannot be {'started' if self._address is None else f'reached at {self._address}'}: "
                f"{_last_line(error)}. {REMEDY}"
            ) from None
        self._connected = True
        if not self._ray.cluster_resources().get("CPU"):
            self.close()
            raise InputError(f"the cluster {self._address} has no processors. Start Ray on machines that have some.")


REMEDY = (
    "Start the command on a machine of the cluster, with --address auto or host:port as `ray start` says it, and the "
    "same versions of Ray and Python as there; without --address, Ray starts on this machine."
)


def load_ray() -> Any:
    """The package.

    Raises:
        InputError: It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(
            f"--engine ray needs Ray, which cannot be imported ({error}). Install it with `pip install 'mtorl[ray]'`, "
            "or leave --engine out."
        ) from None
    return ray


def _check_reachable(address: str) -> None:
    """Raises InputError unless somebody listens there."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if "/" in address or not host or not port.isdigit():
        raise InputError(f"--address is {address}; expected auto or host:port. {REMEDY}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"nobody answers at --address {address}: {error}. {REMEDY}") from None


def _work(content: bytes, folder: str, path: Sequence[str], lent: Mapping[str, Any]) -> bytes:
    """Runs in a worker: does a job.

    Args:
        content: The job.
        folder: Where the command was given.
        path: Where modules were found there.
        lent: What the calling process shares, by name.

    Returns:
        The result, what was raised, and where that was, packed.
    """
    import cloudpickle

    result: bytes
    try:
        _enter(folder)
        sys.path += [entry for entry in path if entry not in sys.path]  # as local processes do
        _shared.clear()
        _shared.update(lent)
        result = cloudpickle.dumps((call_packed(content), None, ""))
    except Exception as error:
        result = cloudpickle.dumps((None, error, traceback.format_exc()))
    return result


def _enter(folder: str) -> None:
    """Makes relative paths mean what they mean where the command was given."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"the machine {socket.gethostname()} has no folder {folder} ({error.strerror}). Give the command in a "
            "folder that all machines of the cluster share, at the same path; data and runs must lie in such folders."
        ) from None


def _borrow(name: str) -> bytes:
    """Runs in a worker: what the calling process shares under that name."""
    import ray

    content: bytes = ray.get(_shared[name])
    return content


def _last_line(error: BaseException) -> str:
    return next(iter(reversed(str(error).strip().splitlines())), type(error).__name__).strip().rstrip(".")
