"""Any aggregator, weighting or scalarizer of the optional package TorchJD."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mtorl import InputError
from mtorl.schema import State
from mtorl.trainers.balancers.base import MatrixAggregation
from mtorl.trainers.gradients import gramian
from mtorl.trainers.seeding import isolated
from mtorl.trainers.update import MultiTaskUpdate

OURS = {
    "MoDoWeighting": "products of gradients on two independent draws: use --balancer MoDo",
    "SDMGradWeighting": "products of gradients on two independent draws: use --balancer SDMGrad",
    "DWA": "to be told where epochs end: use --balancer DWA",
}
"""What of TorchJD needs more than the gradients and losses of a batch, and what has it."""
SIMPLE = (type(None), bool, int, float, str, Tensor, torch.dtype, torch.device)
"""What can be saved of an object's state."""


class TorchJD(MatrixAggregation):
    """An aggregator, a weighting or a scalarizer of the package TorchJD, given its name.

    What it remembers is part of checkpoints if it keeps it in tensors and numbers. NashMTL and FAMO do not: a run with
    them is not resumed, unless `allow_inexact_resume` says that they may start afresh.

    Source: Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024.

    Args:
        name: Name of the class, as in `UPGrad`, `CRMOGMWeighting` or `UW`. Scalarizers that have the name of an
            aggregator are called as in `scalarization.Random`.
        options: Arguments of its constructor. Lists of numbers become tensors; where a weighting is expected, its name
            or a mapping of `name` and `options`.
        allow_inexact_resume: Resume with a fresh object; the result then differs from an uninterrupted run.
    """

    needs = "what TorchJD's object needs: gradients of single tasks, or losses"

    def __init__(self, name: str, options: dict[str, Any] | None = None, allow_inexact_resume: bool = False) -> None:
        super().__init__()
        self.name, self.options, self.allow_inexact_resume = name, options, allow_inexact_resume
        peer = _made(name, options or {})
        self._hidden = (peer,)  # in a tuple, or its buffers would be taken for the balancer's
        # what is to be learned with the agent; FAMO moves its own
        self.learned = nn.ParameterList(() if hasattr(peer, "update") else peer.parameters())

    @property
    def stateful(self) -> bool:
        """Whether it remembers earlier batches."""
        return any(hasattr(module, "reset") for module in self._hidden[0].modules())

    def aggregate(self, rows: Tensor, losses: Tensor | None = None, task_ids: Tensor | None = None) -> Tensor:
        """See `MatrixAggregation.aggregate`; random aggregators draw from this balancer's own stream."""
        self._defaults(rows, losses, task_ids)
        import torchjd.aggregation as family

        (peer,) = self._hidden
        if not isinstance(peer, family.Weighting):
            return self._asked(rows)
        self.last_weights = self._asked(gramian(rows) if _sees_gramian(peer) else rows).to(rows)
        return self.last_weights @ rows

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """The direction of an aggregator or a weighting; of a scalarizer, one backward pass."""
        import torchjd.aggregation as family

        (peer,) = self._hidden
        if isinstance(peer, family.Aggregator | family.Weighting):
            return super().step(update)
        losses = update.losses().values.to("cpu", torch.float64)
        total = self._asked(losses)
        (weights,) = torch.autograd.grad(total, losses, retain_graph=True)
        numbers = update.descend_loss(total, weights)
        learn: Callable[[Tensor], None] | None = getattr(peer, "update", None)
        if learn is not None:
            learn(update.losses().values.detach().to("cpu", torch.float64))
        return numbers

    def _asked(self, values: Tensor) -> Tensor:
        """What the object makes of a matrix or of losses, both with the tasks first."""
        (peer,) = self._hidden
        seed = int(torch.randint(1 << 31, (), generator=self._generator))
        if self.stateful and len(values) != self.task_count:
            raise InputError(
                f"TorchJD's {self.name} keeps a state by position, so every batch must hold all "
                f"{self.task_count} tasks; found {len(values)}. Leave tasks_per_batch out."
            )
        _follow(peer, values)
        with isolated(seed, "torchjd", device=values.device):
            try:
                found: Tensor = peer(values)
            except (ValueError, RuntimeError) as error:
                raise InputError(f"TorchJD's {self.name} failed on {len(values)} tasks: {error}.") from error
        return found

    def get_extra_state(self) -> State:
        """See `Balancer.get_extra_state`; also what the object remembers, if that can be saved."""
        found = super().get_extra_state()
        return found | {"peer": _remembered(self._hidden[0])} if found and self.stateful else found

    def set_extra_state(self, state: State) -> None:
        """See `Balancer.set_extra_state`.

        Raises:
            InputError: The object has a state that was not saved.
        """
        remembered = state.get("peer")
        if remembered is not None:
            _remember(self._hidden[0], remembered)
        elif self.stateful and not self.allow_inexact_resume:
            raise InputError(
                f"TorchJD's {self.name} has a state that cannot be restored. Start a new run, or resume with "
                "--balancer.allow_inexact_resume true to go on with a fresh one."
            )
        super().set_extra_state(state)


def kinds() -> dict[str, type[nn.Module]]:
    """Everything of TorchJD that can be named."""
    try:
        import torchjd.aggregation as family
        import torchjd.scalarization as scalarization
    except ImportError:
        raise InputError("the package torchjd is not installed: `pip install 'mtorl[torchjd]'`.") from None
    found: dict[str, type[nn.Module]] = {
        key: kind
        for key, kind in vars(family).items()
        if isinstance(kind, type)
        and issubclass(kind, family.Aggregator | family.Weighting)
        and not key.endswith("Aggregator")
        and kind is not family.Weighting
    }
    for key, kind in vars(scalarization).items():
        if isinstance(kind, type) and issubclass(kind, scalarization.Scalarizer) and key != "Scalarizer":
            found[f"scalarization.{key}" if key in found else key] = kind
    return found


def _made(name: str, options: dict[str, Any]) -> nn.Module:
    """The object of that name."""
    known = kinds()
    if name not in known:
        raise InputError(f"TorchJD has no aggregator {name!r}; it has {', '.join(sorted(known))}.")
    if name in OURS:
        raise InputError(f"TorchJD's {name} needs {OURS[name]}.")
    try:
        return known[name](**{key: _argument(value, known) for key, value in options.items()})
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"TorchJD's {name} cannot be made with options {options}: {error}.") from None


def _argument(value: Any, known: dict[str, type[nn.Module]]) -> Any:
    """What a constructor expects, for plain values."""
    if isinstance(value, str) and value in known:
        return _made(value, {})
    if isinstance(value, dict) and value.keys() <= {"name", "options"} and "name" in value:
        return _made(value["name"], value.get("options") or {})
    numbers = isinstance(value, list) and value and all(isinstance(it, int | float) for it in value)
    return torch.tensor(value, dtype=torch.float64) if numbers else value


def _sees_gramian(weighting: nn.Module) -> bool:
    """Whether a weighting takes the Gramian, not the matrix of gradients: the type of its argument says so."""
    (_, stat, *_) = inspect.signature(type(weighting).forward).parameters.values()
    if str(stat.annotation).lstrip("~-+") == "_T":  # whatever the one that it holds takes
        return _sees_gramian(weighting.get_submodule("weighting"))
    return "PSDMatrix" in str(stat.annotation)


def _own(module: nn.Module) -> dict[str, Any]:
    """Attributes and buffers of a module that are not every module's."""
    usual = vars(nn.Module())
    return {**{key: value for key, value in vars(module).items() if key not in usual}, **module._buffers}


def _follow(peer: nn.Module, values: Tensor) -> None:
    """Tensors that were options go where the values are."""
    for module in peer.modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_floating_point():
                setattr(module, key, value.to(values))


def _simple(value: Any) -> bool:
    return all(map(_simple, value)) if isinstance(value, list | tuple) else isinstance(value, SIMPLE)


def _remembered(peer: nn.Module) -> State | None:
    """What the parts of an object that have a state hold, by their places; None if it cannot be saved."""
    parts = {path: _own(module) for path, module in peer.named_modules() if hasattr(module, "reset")}
    return parts if all(_simple(value) for part in parts.values() for value in part.values()) else None


def _remember(peer: nn.Module, state: State) -> None:
    for path, module in peer.named_modules():
        for key, value in state.get(path, {}).items():
            setattr(module, key, value)
