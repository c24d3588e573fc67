"""Worker processes that play whole episodes and keep their environments.

Processes, not threads: most of a simulator step is Python. loky starts them without importing the user's main module,
so scripts need no `if __name__ == "__main__"` guard.
"""

import json
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from mtorl import InputError, checks
from mtorl.envs.base import Env, Suite

WORKERS = f"[0, {max(64, 8 * (os.cpu_count() or 1))}]"
"""Numbers of processes that a machine can be expected to hold: each has a simulator of its own."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Environment variables of a worker: with more threads last bits change, and processes get into each other's way."""

_suites: dict[tuple[type[Suite], str], Suite] = {}
_environments: dict[tuple[type[Suite], str, int], list[Env]] = {}


class WorkerPool:
    """A pool that lives as long as its `with` block, or until `close`.

    Args:
        workers: Number of processes; 0 runs everything in the calling process (for debugging).
        allowed: Interval of that number.
    """

    def __init__(self, workers: int, allowed: str = WORKERS) -> None:
        checks.within(allowed, workers=workers)
        self.workers = workers
        self._executor: Any = None

    def run(self, function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Calls `function(*job)` for every job; yields results as they come, in no fixed order.

        Raises:
            InputError: A worker process died.
            Exception: What a job raised; a RuntimeError with its text if it cannot be sent here.
        """
        if not self.workers:
            with _single_thread():
                for job in jobs:
                    yield _call(function, job)
            return
        from concurrent.futures import as_completed
        from concurrent.futures.process import BrokenProcessPool

        import cloudpickle  # by value where a function or class lives in the user's script

        if self._executor is None:
            from loky import ProcessPoolExecutor

            self._executor = ProcessPoolExecutor(
                self.workers,
                timeout=None,
                initializer=_prepare_worker,
                initargs=(os.getpid(),),
                env=ONE_THREAD,
            )
        with _interrupts_held():
            futures = [self._executor.submit(call_packed, cloudpickle.dumps((function, job))) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            self.close()
            raise InputError(
                f"a worker process died: {str(error).splitlines()[0]} Often the memory is full: try fewer --workers. "
                "Finished episodes were saved; the same command continues."
            ) from None
        except BaseException:
            self.close()  # an interrupted or failed run: stop the episodes that are still being played
            raise

    @contextmanager
    def share(self, content: bytes) -> Iterator[Callable[[], bytes]]:
        """Something that many jobs need; inside the block workers get it from what this yields, not with every job."""
        with tempfile.TemporaryDirectory(prefix="mtorl-") as folder:
            path = Path(folder) / "shared"
            path.write_bytes(content)
            yield path.read_bytes

    def close(self) -> None:
        """Stops the processes at once."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)
            self._executor = None

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Holds Ctrl-C back while processes start. They inherit this, and are spared it while they import."""
    from multiprocessing import resource_tracker

    from loky.backend import resource_tracker as its_own

    for tracker in (resource_tracker, its_own):
        tracker.ensure_running()  # now: loky starts both with its first worker, and that lets interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call(function: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    """Calls `function(*job)`. A job does not end the program."""
    try:
        return function(*job)
    except SystemExit as error:
        raise RuntimeError(f"an episode ended its process ({_text(error)})") from error


def call_packed(content: bytes) -> Any:
    """Runs in a worker: whatever goes wrong, unpacking included, is an exception that can be sent back."""
    try:
        function, job = pickle.loads(content)  # packed by the process that started this one
        return _call(function, job)
    except Exception as error:
        try:
            whole = str(pickle.loads(pickle.dumps(error))) == str(error)
        except Exception:
            whole = False
        if whole:
            raise
        raise RuntimeError(_text(error)) from error


def _text(error: BaseException) -> str:
    """An exception's type, message and notes."""
    return ", ".join("".join(traceback.format_exception_only(error)).split("\n")).strip(", ")


def _prepare_worker(parent: int) -> None:
    """Leaves Ctrl-C to the parent, and ends the process when the parent is gone (even by kill -9)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _single_thread() -> Iterator[None]:
    """Policies run on one thread everywhere: another number of threads changes last bits."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def cached_suite(suite: Suite) -> Suite:
    """The first suite in this process with that class and these arguments: it holds what environments share."""
    return _suites.setdefault(_key(suite), suite)


def cached_environments(suite: Suite, task: int, count: int) -> list[Env]:
    """That many environments of one task, built once per process and kept."""
    kept = _environments.setdefault((*_key(suite), task), [])
    while len(kept) < count:
        try:
            kept.append(cached_suite(suite).make(task))
        except (Exception, SystemExit) as error:
            error.add_note(f"in {suite.task_names[task]}, making an environment")
            raise
    return kept[:count]


def _key(suite: Suite) -> tuple[type[Suite], str]:
    return type(suite), json.dumps(suite.arguments, sort_keys=True)
