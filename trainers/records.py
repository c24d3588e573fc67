"""What training says of itself between two entries of the log: sums of numbers, and the rate of steps."""

import math
import time

from mtorl.schema import State
from mtorl.trainers.entries import TrainingEntry
from mtorl.trainers.update import MultiTaskUpdate


class Records:
    """Means of the numbers of single moves, since the last entry.

    Args:
        task_names: Of the agent.
        acting: Names of the phases whose loss is the policy's.
    """

    def __init__(self, task_names: tuple[str, ...], acting: tuple[str, ...]) -> None:
        self._names = task_names
        self._acting = tuple(f"{phase}/loss/" for phase in acting)
        self._clear()
        self.restart_clock(0)

    def _clear(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def restart_clock(self, step: int) -> None:
        """The rate counts from here, after `step` steps: what happened before was no training."""
        self._since, self._from = time.perf_counter(), step

    def add(self, phase: str, update: MultiTaskUpdate, numbers: dict[str, float]) -> None:
        """Adds a move.

        Args:
            phase: Name of its phase.
            update: The move, with the losses and weights of its tasks.
            numbers: What the balancer and the optimizer say of it.
        """
        named = {f"{phase}/{key}": value for key, value in numbers.items()}
        names = [self._names[task] for task in update.task_ids.tolist()]
        for kind, values in (("loss", update.first_losses), ("weight", update.weights)):
            if values is not None:
                each = zip(names, values.tolist(), strict=True)
                named |= {f"{phase}/{kind}/{name}": value for name, value in each if math.isfinite(value)}
        for key, value in named.items():
            self._sums[key] = self._sums.get(key, 0.0) + value
            self._counts[key] = self._counts.get(key, 0) + 1

    def entry(self, step: int) -> TrainingEntry:
        """The entry of the log after `step` steps; the next one begins."""
        means = {key: total / self._counts[key] for key, total in sorted(self._sums.items())}
        losses = {key: value for key, value in means.items() if "/loss/" in key}
        acting = [value for key, value in losses.items() if key.startswith(self._acting)] or list(losses.values())
        rate = (step - self._from) / max(time.perf_counter() - self._since, 1e-9)
        self.restart_clock(step)
        self._clear()
        loss = sum(acting) / max(len(acting), 1)
        return TrainingEntry(step, loss, means, rate)

    def state_dict(self) -> State:
        """Sums and counts since the last entry."""
        return {"sums": self._sums, "counts": self._counts}

    def load_state_dict(self, state: State) -> None:
        """Continues from `state_dict`."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
