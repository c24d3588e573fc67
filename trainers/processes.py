"""The processes that torchrun has started: joining them, what they send each other, and their workers together."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import accumulate, pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mtorl import InputError
from mtorl.envs.workers import WorkerPool

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others, which may be playing or saving; torchrun ends all when one has died."""


class Processes:
    """The processes that train together.

    Attributes:
        rank: Number of this one, from 0; the first one writes files.
        count: N.
        sent: Bytes that this process has sent to others, as far as the pattern of the exchange says.
    """

    def __init__(self) -> None:
        self.rank, self.count, self.sent = dist.get_rank(), dist.get_world_size(), 0

    def gather(self, mine: Tensor, lengths: Sequence[int]) -> Tensor:
        """What every process holds, first axes of these lengths, one behind the other."""
        found = mine.new_empty(sum(lengths), *mine.shape[1:])
        parts = list(found.split(list(lengths)))
        parts[self.rank].copy_(mine)
        self._send([[mine.detach()]] * self.count, [[part] for part in parts])
        return found

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes, in place."""
        dist.all_reduce(values)
        self.sent += 2 * values.nbytes * (self.count - 1) // self.count
        return values

    def exchange(self, rows: Tensor, places: Sequence[Sequence[int]], widths: Sequence[int], columns: Tensor) -> None:
        """Turns rows into columns; rows of several processes with one place are added up, in the processes' order.

        Nothing is packed: parts of rows are sent from where they are, to where they belong.

        Args:
            rows: `[own, P]`.
            places: Of every process, what its rows are in the columns.
            widths: Of every process, its number of columns; P in all.
            columns: `[T, P / N]`, this process's columns of all rows; written.
        """
        spans = [slice(start, stop) for start, stop in pairwise(accumulate(widths, initial=0))]
        arriving: list[list[Tensor]] = [[] for _ in places]
        written, added = set[int](), list[tuple[int, Tensor]]()
        for rank, held in enumerate(places):
            for row, place in enumerate(held):
                target = columns[place]
                if place in written:
                    target = torch.empty_like(target)
                    added.append((place, target))
                written.add(place)
                if rank == self.rank:
                    target.copy_(rows[row, spans[rank]])
                arriving[rank].append(target)
        self._send([[row[span] for row in rows] for span in spans], arriving)
        for place, part in added:
            columns[place] += part

    def _send(self, leaving: Sequence[Sequence[Tensor]], arriving: Sequence[Sequence[Tensor]]) -> None:
        """Sends contiguous tensors to every other process, and fills others with what these send."""
        messages = []
        for peer in range(self.count):
            for way, values in ((dist.isend, leaving[peer]), (dist.irecv, arriving[peer])):
                there = [it for it in values if it.numel() and peer != self.rank]
                messages += [dist.P2POp(way, it, peer) for it in there]
                self.sent += sum(it.nbytes for it in there) if way is dist.isend else 0
        for message in dist.batch_isend_irecv(messages) if messages else ():
            message.wait()

    def first_says(self, flag: bool) -> bool:
        """What the first process says."""
        told = torch.tensor([float(flag)])
        dist.broadcast(told, 0)
        return bool(told)


def processes() -> Processes | None:
    """Those that this process trains with; None if it trains alone."""
    return _joined if dist.is_available() and dist.is_initialized() else None


_joined: Processes | None = None


def leads() -> bool:
    """Whether this process writes files and says things: it trains alone, or is the first one."""
    found = processes()
    return found is None or found.rank == 0


def wait() -> None:
    """Until all processes are here."""
    if processes():
        dist.barrier()


def worker_pool(workers: int) -> WorkerPool:
    """A pool of workers, those of all processes if there are several."""
    together = processes()
    return SharedPool(workers, together) if together else WorkerPool(workers)


def leave() -> None:
    """Ends a process that was one of several and has done its work, at once; a process that works alone goes on.

    At the end of an interpreter the library that carries the messages aborts now and then (seen with torch 2.13), and
    torchrun would call finished work a failure.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


@contextmanager
def joined() -> Iterator[Processes | None]:
    """Joins the other processes that torchrun has started; alone, nothing happens.

    Raises:
        InputError: They cannot be reached.
    """
    global _joined
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "MASTER_ADDR" not in os.environ or processes():
        yield processes()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"the other processes cannot be reached: {str(error).splitlines()[0]}. Start all of them with `torchrun "
            "--standalone --nproc-per-node N -m mtorl train ...`, and on several machines with its --rdzv-endpoint."
        ) from None
    _joined = Processes()
    try:
        yield _joined
    finally:
        _joined = None
        dist.destroy_process_group()


class SharedPool(WorkerPool):
    """Workers of all processes: each lets its own do a share of the jobs, and gets the results of all.

    Args:
        workers: Of each process.
        together: The processes; all of them call `run` with the same jobs.
    """

    def __init__(self, workers: int, together: Processes) -> None:
        super().__init__(workers)
        self._together = together

    def run(self, function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """See `WorkerPool.run`."""
        own = [job for number, job in enumerate(jobs) if number % self._together.count == self._together.rank]
        found: list[list[Any]] = [[] for _ in range(self._together.count)]
        dist.all_gather_object(found, list(super().run(function, own)))  # from processes of this very program
        yield from (result for results in found for result in results)
