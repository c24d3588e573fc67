"""How losses and gradients are computed: the execution, what is compiled, and the precision of the layers between.

| what | precision with `bf16` |
|---|---|
| parameters, moments, normalised observations | single |
| matrix products, forward and backward | bfloat16, summed in single |
| last layers, losses, rows of gradients | single |
| Gramians | as always: blocks of single sums, added up in double |

Compiled is what turns parameters and windows into losses, and, where all tasks are differentiated at once, into
gradients. What tasks compute with (masks, mixtures) is worked out before and handed over: it changes, and nothing is
compiled again. Another shape of the batch, or another part of training (a policy that imitates first), is compiled once
more.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import wraps
from inspect import signature
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

from mtorl import InputError, checks
from mtorl.agents.heads import TaskLosses

Execution = Literal["auto", "joint", "loop", "vmap"]
Backend = Literal["inductor", "aot_eager"]
Precision = Literal["single", "bf16"]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
SHAPES = 64
"""Times that one function may be compiled, for different shapes; more would be compiling instead of training."""


@dataclass(frozen=True)
class Computation:
    """How the losses and gradients of a phase are computed.

    Attributes:
        execution: How the gradients of single tasks are found, see `executions.py`.
        compile: With which backend of `torch.compile`; None: not at all.
        precision: Of the layers between observations and heads.

    Raises:
        InputError: One is unknown.
    """

    execution: Execution = "auto"
    compile: Backend | None = None
    precision: Precision = "single"

    def __post_init__(self) -> None:
        checks.one_of("execution", self.execution, Execution)
        checks.one_of("precision", self.precision, Precision)
        if self.compile is not None:
            checks.one_of("compile", self.compile, Backend)

    @classmethod
    def of(cls, given: "Execution | Computation") -> "Computation":
        """Itself, or that of an execution alone."""
        return given if isinstance(given, Computation) else cls(given)

    def way(self, device: torch.device) -> Execution:
        """The execution on a device."""
        if self.execution == "auto":
            return "loop" if device.type == "cpu" else "vmap"
        return self.execution

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Raises InputError for what a machine, or the precision of the parameters, does not allow."""
        if self.precision == "bf16" and dtype != torch.float32:
            raise InputError(f"precision is bf16, dtype is {str(dtype)[6:]}; expected parameters in float32.")
        if self.compile and "isolate_recompiles" not in signature(torch.compile).parameters:
            raise InputError(
                f"compile needs torch 2.13 and found {torch.__version__}. Install it, or leave --compile out."
            )
        if self.compile == "inductor" and device.type == "cpu":
            _find_compiler()

    def prepared(self, function: Callable[Arguments, Result], device: torch.device) -> Callable[Arguments, Result]:
        """A function of tensors, computed this way.

        Args:
            function: The function.
            device: Of the tensors.
        """
        found = _in_bf16(function, device) if self.precision == "bf16" else function
        return found if self.compile is None else _compiled(found, self.compile, device)


def _in_bf16(function: Callable[Arguments, Result], device: torch.device) -> Callable[Arguments, Result]:
    @wraps(function)
    def lowered(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        # without its cache: that would hand one task's weights to the next
        with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
            return function(*arguments, **options)

    return lowered


def own_memory(found: TaskLosses) -> TaskLosses:
    """The same losses, to be kept while others are computed.

    What is compiled for a GPU uses its memory again with its next call, unless a backward pass is still to come.
    """
    if torch.is_grad_enabled():
        return found
    tensors: dict[str, Any] = {
        it.name: value for it in fields(found) if isinstance(value := getattr(found, it.name), Tensor)
    }
    return replace(found, **{name: value.clone() for name, value in tensors.items()})


def _compiled(
    function: Callable[Arguments, Result], backend: Backend, device: torch.device
) -> Callable[Arguments, Result]:
    import torch._dynamo.config as limits
    import torch._functorch.config  # not before it is asked for: it takes a second
    from torch._dynamo import exc

    refusals = exc.TorchDynamoException, exc.FailOnRecompileLimitHit
    limits.accumulated_recompile_limit = max(limits.accumulated_recompile_limit, 1 << 16)  # a sweep has many runs
    torch._functorch.config.donated_buffer = False  # some balancers go back through a graph twice
    graphs = {"triton.cudagraphs": True} if backend == "inductor" and device.type == "cuda" else None
    found = torch.compile(  # type: ignore[call-overload]  # whose stubs lag behind
        function,
        fullgraph=True,
        dynamic=False,
        backend=backend,
        options=graphs,
        isolate_recompiles=True,
        recompile_limit=SHAPES,
    )

    @wraps(function)
    def refusing(*arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        try:
            result: Result = found(*arguments, **options)
            return result
        except refusals as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise InputError(f"the step cannot be compiled ({reason}). Leave --compile out.") from error

    return refusing


def _find_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        raise InputError(
            "compile is inductor, which needs a C++ compiler where it trains on the CPU; found none. Install g++ or "
            "clang++, name yours in the variable CXX, or leave --compile out."
        ) from None
