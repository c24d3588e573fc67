"""Policies as files that need nothing of ours: tensors (safetensors), TorchScript, ONNX.

Beside each lies `policy.json`, which the file holds as well: names of tasks and inputs, dimensions, options.
"""

import importlib.util
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mtorl import InputError, __version__, checks
from mtorl.files import write_atomically, write_json
from mtorl.runs.portable import Examples, PortablePolicy, check_portable, check_same
from mtorl.runs.run import Run
from mtorl.schema import Document

FileFormat = Literal["safetensors", "torchscript", "onnx"]
NAMES = {"safetensors": "policy.safetensors", "torchscript": "policy.pt", "onnx": "policy.onnx"}
"""What the file of each format is called."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write_policy(
    run: Run, folder: Path, form: FileFormat, checkpoint: str = "last", act_with: str | None = None
) -> Path:
    """Writes the policy of a run, and `policy.json` beside it.

    Args:
        run: The run.
        folder: Where to.
        form: safetensors, torchscript or onnx.
        checkpoint: `last`, `best` on training goals, or a step.
        act_with: Which policy of an agent that has several.

    Returns:
        The file.

    Raises:
        InputError: The agent cannot be written so, or what ONNX needs is not installed.
    """
    checks.one_of("format", form, FileFormat)
    if form == "onnx":
        _need_onnx()
    policy, source = run.policy(checkpoint, act_with)
    check_portable(policy, form)
    portable = PortablePolicy(policy, run.suite())
    about = describe(run, portable, form) | {"source": {"run": run.folder.name, **source.plain()}}
    data = _WRITERS[form](portable, about)
    path = folder / NAMES[form]
    write_atomically(path, lambda file: file.write(data))
    write_json(folder / "policy.json", about)
    return path


def describe(run: Run, portable: PortablePolicy, form: FileFormat) -> Document:
    """What is needed to use a file."""
    agent, spec = portable.members[0].agent, run.spec
    configured = run.parts[0].configuration.plain["agent"]
    steps = Examples(portable).reads_steps
    inner = "N, K" if steps else "N"
    shapes = {"observations": f"[{inner}, {spec.observation_dim}]", "actions": f"[{inner}, {spec.action_dim}]"}
    about = {
        "mtorl": __version__,
        "format": form,
        "file": NAMES[form],
        "tasks": list(portable.task_names),
        "observation_dim": spec.observation_dim,
        "action_dim": spec.action_dim,
        "goal_visible": run.suite().goal_visible,
        "inputs": {**{name: shapes.get(name, f"[{inner}]") for name in portable.decides_on}, "task": "[], int64"},
        "output": f"[N, {spec.action_dim}], within [-1, 1]",
        "agent": configured,
        "context": agent.window if steps else None,
        "own_dimensions": spec.own_dimensions,
    }
    if agent.reads_rewards and "returns_to_go" in portable.decides_on:
        about["target_returns"] = [_target(portable, task) for task in range(len(portable.task_names))]
    return about


def _target(portable: PortablePolicy, task: int) -> float:
    """The return that is asked for in a task."""
    member = portable.members[int(portable.group[task])]
    return float(member.agent.get_buffer("return_target")[portable.place[task, int(portable.group[task])]])


class _Reads(TorchFunctionMode):
    """Notes which tensors are read, and whether one of them has no elements."""

    def __init__(self) -> None:
        super().__init__()
        self.read: set[int] = set()
        self.empty = False

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in _flat([args, kwargs or {}]):
            self.read.add(id(value))
            self.empty |= value.numel() == 0
        return func(*args, **(kwargs or {}))


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _flat(inner)


def acting_tensors(portable: PortablePolicy) -> tuple[dict[str, Tensor], list[str]]:
    """What acting reads, by names in the agent, and the names of those that have the task as their first axis.

    With a model for each group of tasks, names begin with `group-N.`, and tasks are those of the group.
    """
    reads = _reads(portable)
    tensors, differing = {"shown": portable.shown}, []
    for number, member in enumerate(portable.members):
        prefix = f"group-{number}." if len(portable.members) > 1 else ""
        every: dict[str, Tensor] = {**dict(member.agent.named_parameters()), **dict(member.agent.named_buffers())}
        read = {name: value for name, value in every.items() if id(value) in reads.read}
        tensors |= {prefix + name: value for name, value in (read | member.own()).items()}
        differing += [prefix + name for name in member.own()]
    return {name: value.detach().clone().contiguous() for name, value in tensors.items()}, differing


def _reads(portable: PortablePolicy) -> _Reads:
    """What acting reads in any task."""
    example = Examples(portable)
    with torch.no_grad(), _Reads() as reads:
        for task in range(len(portable.task_names)):
            portable(*example.inputs(2, example.window, task))
    return reads


def _safetensors(portable: PortablePolicy, about: Document) -> bytes:
    tensors, differing = acting_tensors(portable)
    about |= {"per_task": differing, "groups": portable.group.tolist() if len(portable.members) > 1 else None}
    return save(tensors, {"format": "pt", "mtorl": json.dumps(about)})


def _torchscript(portable: PortablePolicy, about: Document) -> bytes:
    traced = traced_policy(portable)
    check_same(portable, traced, "torchscript")
    buffer = io.BytesIO()
    with _silent():
        torch.jit.save(traced, buffer, _extra_files={"policy.json": json.dumps(about)})
    return buffer.getvalue()


def traced_policy(portable: PortablePolicy) -> Callable[..., Tensor]:
    """The policy as a graph, in which its tensors are constants; what acting does not read is gone."""
    example = Examples(portable)
    with _silent():
        traced = torch.jit.trace(portable, example.inputs(3, example.window, 0), check_trace=False)
        return torch.jit.freeze(traced, optimize_numerics=False)


def _onnx(portable: PortablePolicy, about: Document) -> bytes:
    import onnx
    import onnxruntime

    model = onnx.load_model_from_string(_onnx_graph(portable))
    onnx.helper.set_model_props(model, {"mtorl": json.dumps(about)})
    data = model.SerializeToString()
    wanted = {it.name for it in model.graph.input}

    def played(*inputs: Tensor) -> Tensor:
        named = zip((*portable.decides_on, "task"), inputs, strict=True)
        return torch.from_numpy(session.run(None, {name: it.numpy() for name, it in named if name in wanted})[0])

    try:
        session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        check_same(portable, played, "onnx")
    except InputError:
        raise
    except Exception as error:  # the runtime's have nothing else in common
        raise InputError(f"the runtime refuses the ONNX file: {error}. Use --format safetensors, or run.") from None
    about["inputs"] = {name: shape for name, shape in about["inputs"].items() if name in wanted}
    return data


def _onnx_graph(portable: PortablePolicy) -> bytes:
    """The graph.

    By torch's older exporter, which is quick; by the newer one where steps before the newest are looked at, as it knows
    all sizes as free, where the older one ends the process (tensors without elements), and for what it does not know.
    """
    with _silent(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.onnx"
        if not (Examples(portable).reads_steps or _reads(portable).empty):
            with suppress(torch.onnx.errors.OnnxExporterError, RuntimeError):
                _export_traced(portable, path)
                return path.read_bytes()
        try:
            _export_program(portable, path)
        except Exception as error:  # of several packages
            why = str(error).strip().split("\n")[0]
            raise InputError(
                f"it cannot be written as ONNX ({why}). Use --format torchscript or safetensors."
            ) from error
        return path.read_bytes()


def _export_traced(portable: PortablePolicy, path: Path) -> None:
    names, example = [*portable.decides_on, "task"], Examples(portable)
    sizes: Document = {"dynamic_axes": {name: {0: "N"} for name in (*portable.decides_on, "action")}}
    inputs = example.inputs(3, example.window, 0)
    torch.onnx.export(portable, inputs, str(path), input_names=names, output_names=["action"], dynamo=False, **sizes)


def _export_program(portable: PortablePolicy, path: Path) -> None:
    names, example = [*portable.decides_on, "task"], Examples(portable)
    free = dict.fromkeys(range(2 if example.reads_steps else 1), torch.export.Dim.DYNAMIC)
    sizes: Document = {"dynamic_shapes": {"inputs": (*[free] * len(portable.decides_on), None)}}
    inputs = example.inputs(3, example.window, 0)
    program = torch.onnx.export(
        portable, inputs, input_names=names, output_names=["action"], dynamo=True, verbose=False, **sizes
    )
    assert program is not None
    program.save(str(path))


def _need_onnx() -> None:
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX needs {', '.join(missing)}: install `mtorl[onnx]`. torchscript needs nothing else.")


@contextmanager
def _silent() -> Iterator[None]:
    """Without torch's remarks on tracing: what is written is compared with the policy afterwards."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


_WRITERS: dict[str, Callable[[PortablePolicy, Document], bytes]] = {
    "safetensors": _safetensors,
    "torchscript": _torchscript,
    "onnx": _onnx,
}
