"""Any aggregator of the optional package TorchJD."""

from typing import Any

import torch
from torch import Tensor

from mtorl import InputError
from mtorl.schema import State
from mtorl.trainers.balancers.base import MatrixAggregation
from mtorl.trainers.seeding import isolated


class TorchJD(MatrixAggregation):
    """An aggregator of the package TorchJD, given its name.

    Its state, if it has any, is not part of checkpoints: a run with such an aggregator is not resumed, unless
    `allow_inexact_resume` says that it may start afresh.

    Source: Quinton and Rey, Jacobian Descent for Multi-Objective Optimization, 2024.

    Args:
        name: Name of the aggregator's class, as in `UPGrad`.
        options: Arguments of its constructor.
        allow_inexact_resume: Resume with a fresh aggregator; the result then differs from an uninterrupted run.
    """

    def __init__(self, name: str, options: dict[str, Any] | None = None, allow_inexact_resume: bool = False) -> None:
        super().__init__()
        try:
            import torchjd.aggregation as family
        except ImportError:
            raise InputError("the package torchjd is not installed: `pip install 'mtorl[torchjd]'`.") from None
        aggregators = {
            key: kind
            for key, kind in vars(family).items()
            if isinstance(kind, type) and issubclass(kind, family.Aggregator) and not key.endswith("Aggregator")
        }
        if name not in aggregators:
            raise InputError(f"TorchJD has no aggregator {name!r}; it has {', '.join(sorted(aggregators))}.")
        self.name, self.options, self.allow_inexact_resume = name, options, allow_inexact_resume
        try:
            # in a tuple, or its buffers would be taken for the balancer's
            self._hidden = (aggregators[name](**(options or {})),)
        except (TypeError, ValueError, ImportError) as error:
            raise InputError(f"TorchJD's {name} cannot be made with options {options or {}}: {error}.") from None

    @property
    def stateful(self) -> bool:
        """Whether the aggregator remembers earlier batches."""
        (aggregator,) = self._hidden
        return hasattr(aggregator, "reset")

    def aggregate(self, rows: Tensor, losses: Tensor | None = None, task_ids: Tensor | None = None) -> Tensor:
        """See `MatrixAggregation.aggregate`; random aggregators draw from this balancer's own stream."""
        self._defaults(rows, losses, task_ids)
        seed = int(torch.randint(1 << 31, (), generator=self._generator))
        if self.stateful and len(rows) != self.task_count:
            raise InputError(
                f"TorchJD's {self.name} keeps a state by position, so every batch must hold all "
                f"{self.task_count} tasks; found {len(rows)}. Leave tasks_per_batch out."
            )
        with isolated(seed, "torchjd", device=rows.device):
            (aggregator,) = self._hidden
            try:
                return aggregator(rows)
            except (ValueError, RuntimeError) as error:
                raise InputError(f"TorchJD's {self.name} failed on {len(rows)} tasks: {error}.") from error

    def set_extra_state(self, state: State) -> None:
        """See `Balancer.set_extra_state`.

        Raises:
            InputError: The aggregator has a state that was not saved.
        """
        if self.stateful and not self.allow_inexact_resume:
            raise InputError(
                f"TorchJD's {self.name} has a state that cannot be restored. Start a new run, or resume with "
                "--balancer.allow_inexact_resume true to go on with a fresh one."
            )
        super().set_extra_state(state)
