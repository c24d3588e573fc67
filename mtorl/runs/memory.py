"""What training will take of memory, before any of it is taken: a step with tensors that have shapes but no numbers."""

import logging
import os
import re
import resource
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.agents import Agent
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.prompts import Prompt
from mtorl.trainers.sharing import Sharing

REMEDY = "Use fewer --windows, a shorter context or a smaller network."
LONG = 256
"""Steps of a window or a prompt, of which more are not tried out."""
UNCOUNTABLE = (RuntimeError, TypeError, OverflowError)
"""What torch raises where a size is no longer an integer of 64 bits, among other things."""


@dataclass(frozen=True)
class BatchSizes:
    """How much of a batch is in memory at a time.

    Attributes:
        windows: Windows per task in a batch.
        tasks: Tasks in a batch.
        together: Tasks whose losses are computed in one pass.
        rows: Tasks whose gradients are held side by side.
    """

    windows: int
    tasks: int
    together: int
    rows: int


def check_memory(
    build: Callable[[], Agent], sharing: Sharing, sizes: BatchSizes, device: torch.device, dtype: torch.dtype
) -> None:
    """Refuses what certainly needs more memory than there is; what is hard to foresee counts as nothing.

    Args:
        build: Makes the agent.
        sharing: Which parameters each task computes with.
        sizes: Of batches.
        device: Where training takes place.
        dtype: Precision of training.

    Raises:
        InputError: Says what it would take, and what is there.
    """
    there = _available(device)
    if _surely_fits(build, sharing, sizes, dtype, there):
        return
    try:
        held, drawn, passing = _needs(build, sharing, sizes, device, dtype)
    except UNCOUNTABLE as error:
        if isinstance(error, OverflowError) or re.search("overflow|failed to unpack", str(error)):
            raise InputError(f"training would take more memory than can be counted. {REMEDY}") from None
        return  # an agent that looks at numbers when it is built
    total = held + drawn + passing
    if total > there:
        raise InputError(
            f"training would take at least {_in_gb(total)} of memory (weights and moments {_in_gb(held)}, a batch "
            f"{_in_gb(drawn)}, what gradients need {_in_gb(passing)}); {_in_gb(there)} are there. {REMEDY}"
        )


def _only_shapes() -> AbstractContextManager[Any]:
    """Within it tensors know their device, but no numbers."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # making one loads torch's compiler: a second

    logging.getLogger(FakeTensorMode.__module__).setLevel(logging.CRITICAL)  # it tells of errors that are caught

    class OnlyShapes(FakeTensorMode):
        def __deepcopy__(self, memo: dict[int, Any]) -> "OnlyShapes":
            """Itself: tensors of a copied network live with the others."""
            return self

    return OnlyShapes()


def _needs(
    build: Callable[[], Agent], sharing: Sharing, sizes: BatchSizes, device: torch.device, dtype: torch.dtype
) -> tuple[int, int, int]:
    """Bytes of weights with their moments, of a batch, and of what gradients need besides."""
    with warnings.catch_warnings(), _only_shapes():
        warnings.simplefilter("ignore")  # copies of networks look where a tensor lies
        agent = build()
        batch = _shapes(agent, sizes.tasks, sizes.windows).to(device, dtype)
        held, passing = _agent_bytes(agent, batch.select(range(sizes.together)), device, dtype)
        held += _shared_bytes(agent, sharing, dtype)
    drawn = sum(map(_bytes, batch.tensors))
    return held, drawn, passing + sizes.rows * max(len(phase.space) for phase in agent.phases) * dtype.itemsize


def _shared_bytes(agent: Agent, sharing: Sharing, dtype: torch.dtype) -> int:
    """What a sharing holds, with moments."""
    tasks = len(agent.spec.task_names)
    return 3 * dtype.itemsize * sum(sharing.size(phase.space, tasks) for phase in agent.phases)


def _surely_fits(
    build: Callable[[], Agent], sharing: Sharing, sizes: BatchSizes, dtype: torch.dtype, there: int
) -> bool:
    """Whether training takes less than half of what is there by what one window takes, which is quick to see.

    False where that cannot be said: of large networks, long windows, and agents that cannot be built without numbers.
    """
    with suppress(Exception), torch.random.fork_rng(devices=[]):
        with torch.device("meta"):
            weights = sum(map(_bytes, build().parameters()))
        if 20 * weights > there:
            return False
        agent = build().to(dtype)
        if max(agent.window, agent.prompts.length if agent.prompts else 0) > LONG:
            return False
        window = _shapes(agent, 1, 1).to(torch.device("cpu"), dtype)
        kept = _kept_for_gradients(agent, dict(agent.named_parameters()), window, strict=True)
        drawn = sizes.tasks * sum(map(_bytes, window.tensors))
        total = (5 + sizes.rows) * weights + sizes.windows * (sizes.together * kept + drawn)
        return 2 * (total + _shared_bytes(agent, sharing, dtype)) < there
    return False


def _shapes(agent: Agent, tasks: int, windows: int) -> TaskBatch:
    """A batch of the sizes of those that the sampler draws."""
    seen, acted = agent.spec.observation_dim, agent.spec.action_dim

    def column(*last: int, steps: int = agent.window, kind: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(tasks, windows, steps, *last, dtype=kind)

    found = TaskBatch(
        observations=column(seen),
        actions=column(acted),
        rewards=column(),
        returns_to_go=column(),
        timesteps=column(kind=torch.int64),
        valid=column(kind=torch.bool),
        task_ids=torch.zeros(tasks, dtype=torch.int64),
    )
    if agent.next_observations:
        found = replace(found, next_observations=column(seen), terminated=column(kind=torch.bool))
    if agent.prompts:
        steps = agent.prompts.length
        shown = column(seen, steps=steps), column(acted, steps=steps), column(steps=steps)
        found = replace(found, prompt=Prompt(*shown, column(steps=steps, kind=torch.int64)))
    found.know((0,) * tasks)  # where tensors have no numbers nobody can look
    return found


def _agent_bytes(agent: Agent, batch: TaskBatch, device: torch.device, dtype: torch.dtype) -> tuple[int, int]:
    """Bytes of the weights with their moments, and what a step needs besides: first activations, then gradients."""
    values = {
        name: value.detach()
        .to(device, dtype if value.is_floating_point() else None)
        .requires_grad_(value.requires_grad)
        for name, value in (*agent.named_parameters(), *agent.named_buffers())
    }
    trained = sum(_bytes(it) for it in values.values() if it.requires_grad)
    held = sum(map(_bytes, values.values())) + 2 * trained
    return held, max(trained, _kept_for_gradients(agent, values, batch))


def _kept_for_gradients(agent: Agent, values: dict[str, Tensor], batch: TaskBatch, strict: bool = False) -> int:
    """Bytes that a forward pass, as far as it comes, keeps for the backward pass: the most of any phase.

    Args:
        agent: The agent.
        values: Its parameters and buffers.
        batch: What it sees.
        strict: Raise what goes wrong; by default what a pass kept until then counts, as some look at numbers.
    """
    errors: AbstractContextManager[Any] = nullcontext() if strict else suppress(Exception)
    most, own = 0, {it.untyped_storage() for it in values.values()}
    for phase in range(len(agent.phases)):
        kept: set[torch.UntypedStorage] = set()

        def note(value: Tensor, kept: set[torch.UntypedStorage] = kept) -> Tensor:
            kept.add(value.untyped_storage())
            return value

        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value), errors:
            torch.func.functional_call(agent, values, (phase, batch))
        most = max(most, sum(it.nbytes() for it in kept - own))
    return most


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _available(device: torch.device) -> int:
    """Bytes that can still be taken: of the device, or of the machine and what this process may take of it."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    table, limit = Path("/proc/meminfo"), Path("/sys/fs/cgroup/memory.max")
    if table.exists():
        sizes = dict(line.split(":") for line in table.read_text().splitlines())
        found = sum(1024 * int(sizes[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    if limit.exists() and (words := limit.read_text().strip()).isdigit():
        found = min(found, int(words))
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    return found if most == resource.RLIM_INFINITY else min(found, most)


def _in_gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
