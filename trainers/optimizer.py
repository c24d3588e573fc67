"""AdamW with warm-up, a schedule and clipping; rows of tasks outside the batch stay where they are."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtorl import InputError, checks
from mtorl.schema import State

MOMENTS = ("exp_avg", "exp_avg_sq")


class _AdamW(torch.optim.AdamW):
    """AdamW that does not load torch's compiler, which takes a second at every start.

    These methods are torch's own, without the decorators that keep a compiler out of them.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW (Loshchilov and Hutter, 2019).

    Attributes:
        lr: Learning rate after warm-up.
        weight_decay: Decoupled weight decay.
        betas: Decay of the first and second moments.
        warmup: Steps over which the learning rate rises linearly from zero.
        schedule: After warm-up stay constant, or fall to zero along a cosine.
        clip: Largest norm of the gradient; 0 leaves it as it is.
    """

    lr: float = 1e-3
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 100
    schedule: Literal["constant", "cosine"] = "cosine"
    clip: float = 1.0

    def __post_init__(self) -> None:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"optimizer: betas {list(self.betas)}; expected two numbers from 0 to below 1.")
        checks.within("(0, inf)", lr=self.lr)
        checks.within("[0, inf)", weight_decay=self.weight_decay)
        checks.within("[0, inf]", clip=self.clip)
        checks.at_least(0, warmup=self.warmup)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) of `steps`."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(steps - self.warmup, 1)))


class PhaseOptimizer:
    """Moves the parameters of one phase.

    Args:
        settings: Learning rate and the rest.
        module: Whose parameters move, but for frozen ones (`requires_grad=False`).
        extra: Learned parameters of the balancer.
        rows: Parameters whose rows belong to tasks; those of other phases are not looked at.
        steps: Steps in all, for the schedule.
        extra_rate: Learning rate of `extra` after warm-up, which follows the same schedule; by default the agent's.
        row_of: Which row is a task's, `[T]`, for those of `rows` whose first axis is not the task: tasks of a group may
            have one in common, which moves if one of them is in the batch.

    Attributes:
        moves: Steps that it took; with some balancers several in a training step.
    """

    def __init__(
        self,
        settings: OptimizerSettings,
        module: nn.Module,
        extra: Sequence[nn.Parameter],
        rows: Sequence[nn.Parameter],
        steps: int,
        extra_rate: float | None = None,
        row_of: Mapping[nn.Parameter, Tensor] | None = None,
    ) -> None:
        self.settings, self.steps, self.moves = settings, steps, 0
        self._rates = [1.0, (extra_rate or settings.lr) / settings.lr]
        self._parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        mine = {id(parameter) for parameter in (*self._parameters, *extra)}
        self._rows = [row for row in rows if id(row) in mine]
        self._row_of = [of.cpu() if (of := (row_of or {}).get(row)) is not None else None for row in self._rows]
        self._decays = [0.0 if any(row is it for it in extra) else settings.weight_decay for row in self._rows]
        self._seen = [torch.zeros(len(row), dtype=torch.int64) for row in self._rows]
        self._taken = [0] * len(self._rows)
        groups: list[dict[str, Any]] = [{"params": self._parameters}]
        if extra:
            groups.append({"params": list(extra), "weight_decay": 0.0})
        self._adam = _AdamW(
            groups, lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
        )

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        self._adam.zero_grad()

    def step(self, index: int, task_ids: Tensor, unused: Sequence[tuple[Tensor, Tensor]] = ()) -> dict[str, float]:
        """Clips the gradients in place and takes one step.

        AdamW moves a parameter whose gradient is zero, by momentum and decay. What no task of the batch uses is
        therefore restored after the step, with its moments.

        Args:
            index: Number of the training step, from 0, for the learning rate: a training step may take several of
                these.
            task_ids: The tasks of the batch; the rows of all others are restored.
            unused: Parameters of which some entries are to be restored, each with their flat indices.

        Returns:
            Norm of the gradient before clipping, and the learning rate.

        Raises:
            InputError: The gradient is not finite; nothing has moved.
        """
        rate = self.settings.rate(index, self.steps)
        for group, share in zip(self._adam.param_groups, self._rates, strict=False):
            group["lr"] = share * rate
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.clip or math.inf)
        size = float(norm)  # of all that follows, the only number that comes from a GPU
        if not math.isfinite(size):
            raise InputError(
                f"the gradient's norm is {size} at step {index}, though all losses are finite. Lower "
                "--optimizer.lr, or check the data with `mtorl info --verify`."
            )
        present = self._present(task_ids)
        catching_up = self._late_rows(present, rate)
        each = [(row, _others(row, mine)) for row, mine in zip(self._rows, present, strict=True)]
        rows = [(row, others, False) for row, others in each if len(others)]
        resting = [*rows, *((parameter, entries, True) for parameter, entries in unused)]
        kept = [(parameter, where, flat, self._read(parameter, where, flat)) for parameter, where, flat in resting]
        self._adam.step()
        self.moves += 1
        self._taken = [taken + (row.grad is not None) for taken, row in zip(self._taken, self._rows, strict=True)]
        for row, places, factor, decayed in catching_up:
            row.detach()[places] = decayed + factor * (row.detach()[places] - decayed)
        for parameter, where, flat, values in kept:
            self._write(parameter, where, flat, values)
        return {"gradient_norm": size, "learning_rate": rate}

    def _present(self, task_ids: Tensor) -> list[Tensor]:
        """Of each parameter in `rows`, which rows are those of some tasks; ascending, on the CPU."""
        tasks = task_ids.cpu().unique()
        return [tasks if of is None else of[tasks].unique() for of in self._row_of]

    def _late_rows(self, present: list[Tensor], rate: float) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Rows of present tasks that took fewer steps than Adam counts, and by what their step is to be corrected.

        Adam's correction for moments that start at zero goes by the number of all steps; a row that takes part in few
        of them would take steps several times too long.
        """
        first, second = self.settings.betas
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        each = zip(self._rows, self._seen, self._taken, self._decays, present, strict=True)
        for row, seen, taken, decay, mine in each:
            seen[mine] += 1
            steps = taken + 1.0
            own = seen[mine].double()
            if bool((own == steps).all()):
                continue
            factor = (1 - first**steps) / (1 - first**own) * ((1 - second**own) / (1 - second**steps)).sqrt()
            places = mine.to(row.device)
            values = row.detach()[places]
            shape = (-1, *[1] * (row.ndim - 1))
            found.append((row, places, factor.to(row).view(shape), values * (1 - rate * decay)))
        return found

    def _read(self, parameter: Tensor, where: Tensor, flat: bool) -> list[Tensor]:
        """Values and both moments at rows, or at flat indices (indexing with a tensor copies)."""
        state, value = self._adam.state.get(parameter, {}), _view(parameter, flat)[where]
        moments = [_view(state[name], flat)[where] if name in state else torch.zeros_like(value) for name in MOMENTS]
        return [value, *moments]

    def _write(self, parameter: Tensor, where: Tensor, flat: bool, values: list[Tensor]) -> None:
        state = self._adam.state.get(parameter)
        targets = [parameter, *([state[name] for name in MOMENTS] if state else [])]
        for target, value in zip(targets, values, strict=False):
            _view(target, flat)[where] = value

    def state_dict(self) -> State:
        """Moments, and how many steps every row took part in."""
        return {"adam": self._adam.state_dict(), "seen": [seen.clone() for seen in self._seen]}

    def load_state_dict(self, state: State) -> None:
        """Continues from `state_dict`."""
        self._adam.load_state_dict(state["adam"])
        for seen, saved in zip(self._seen, state["seen"], strict=True):
            seen[:] = saved
        kept = [self._adam.state.get(row) for row in self._rows]
        self._taken = [int(it["step"]) if it else 0 for it in kept]


def _view(values: Tensor, flat: bool) -> Tensor:
    return values.detach().view(-1) if flat else values.detach()


def _others(row: nn.Parameter, present: Tensor) -> Tensor:
    absent = torch.ones(len(row), dtype=torch.bool)
    absent[present] = False
    return absent.nonzero().flatten().to(row.device)
