"""Connection-strength based optimization (task priority). Written from the paper.

Deviations:
1. The paper's strength is the scale of a task's own normalisation layer behind a shared convolution. Our agents have
   other connections: see `strength`. A layer without any takes the plain sum of the gradients, as biases and norms do.
2. The probability of the second phase is the share of training that is done, instead of epochs.
"""

from typing import Literal

import torch
from torch import Tensor

from mtorl import InputError, checks
from mtorl.trainers.balancers.base import Balancer
from mtorl.trainers.sharing.weight_masks import WeightMasks
from mtorl.trainers.update import MultiTaskUpdate

Strength = Literal["auto", "task_affine", "route", "head_link", "harmony_mask"]


class ConnectionStrength(Balancer):
    """Learns which task has priority on each channel of shared layers, and keeps others from overruling it.

    The first phase lets the tasks step in turn, so that they claim channels. The second one steps once: on every
    channel, gradients that conflict with that of the task with the strongest connection are projected. Which phase
    comes is drawn for every step (or every `period`); the second becomes more likely as training goes on.

    Source: Jeong and Yoon, Quantifying Task Priority for Multi-Task Optimization, 2024, equations 4 to 10 and
    algorithm 1.

    Args:
        strength: What ties a task to a channel. `task_affine`: the task's gain on it (agents with task_gain);
            `route`: the share of the channel's module in the mixtures that the task uses (agents with soft modules that
            are routed by the task alone); `head_link`: the weights of the task's head times the variance of the feature
            (agents with heads of single tasks; the last shared layer); `harmony_mask`: the weights that the task's mask
            keeps; `auto`: the first of task_affine, harmony_mask, route and head_link that is there.
        phases: Mix both, or keep to one of them.
        granularity: Draw the phase for every step, or for every period.
        period: Training steps in a period; below 1, as a share of all training steps.
    """

    needs = "steps of single tasks, and gradients of single tasks with the strength of their connections"
    second: Tensor
    calls: Tensor

    def __init__(
        self,
        strength: Strength = "auto",
        phases: Literal["both", "first", "second"] = "both",
        granularity: Literal["step", "period"] = "step",
        period: float = 0.05,
    ) -> None:
        super().__init__()
        checks.one_of("strength", strength, Strength)
        checks.one_of("phases", phases, ("both", "first", "second"))
        checks.one_of("granularity", granularity, ("step", "period"))
        checks.within("(0, inf)", period=period)
        self.strength, self.phases, self.granularity, self.period = strength, phases, granularity, period

    def initial_state(self, tasks: int, size: int) -> dict[str, Tensor]:
        """The phase that was drawn last, and how many batches there were."""
        return {"second": torch.zeros((), dtype=torch.bool), "calls": torch.zeros((), dtype=torch.int64)}

    def step(self, update: MultiTaskUpdate) -> dict[str, float]:
        """One of the two phases."""
        if self.granularity == "step" or int(self.calls) % self.span(self.period) == 0:
            draw = torch.rand((), generator=self._generator, dtype=torch.float64)
            # Deviation 2: progress, in place of epochs
            self.second = {"both": draw < update.progress, "first": draw < 0, "second": draw < 1}[self.phases]
        if not self.calls:
            self._links(update)  # so that a missing connection is noticed at once
        self.calls += 1
        numbers = self._project(update) if self.second else self._in_turn(update)
        return numbers | {"second_phase": float(self.second)}

    def _in_turn(self, update: MultiTaskUpdate) -> dict[str, float]:
        numbers: dict[str, float] = {}
        for position in range(len(update.task_ids)):
            part = update.select([position])
            numbers = part.descend_loss(part.losses().values.sum())
        return numbers

    def _project(self, update: MultiTaskUpdate) -> dict[str, float]:
        links, gradients = self._links(update), update.gradients()
        space = update.phase.space
        direction = gradients.pulled_back.sum(0)  # Deviation 1: layers without connections keep it
        for name, strengths in links.items():
            place = space.slice_of(name)
            rows = gradients.pulled_back[:, place].unflatten(1, (strengths.shape[1], -1))
            direction[place] += conserved_priority(rows, top_task(strengths)).flatten()
        return update.descend(direction)

    def _links(self, update: MultiTaskUpdate) -> dict[str, Tensor]:
        """Strengths `[T, channels]` of the batch's tasks, for every layer that has connections."""
        agent, space, ids = update.agent, update.phase.space, update.task_ids
        masks = update.sharing if isinstance(update.sharing, WeightMasks) else None
        weights = {name: value.detach() for name, value in space.select(agent).items()}
        links = [link for link in agent.task_links() if link.name in weights]
        gains = [link for link in links if link.kind == "gain"]
        routes = [link for link in links if link.kind == "route"]
        heads = [link for link in links if link.kind == "head"]
        kind: str = self.strength
        if kind == "auto":
            there = {"task_affine": gains, "harmony_mask": masks is not None, "route": routes, "head_link": True}
            kind = next(name for name, connections in there.items() if connections)
        factors = {"task_affine": gains, "route": routes}.get(kind)
        if factors:
            return {link.name: link.strengths[ids] * weights[link.name].square().sum(1) for link in factors}
        if kind == "head_link" and heads:
            return {link.name: link.strengths[ids] * self._feature_variance(update) for link in heads}
        if kind == "harmony_mask" and masks is not None:
            return {
                name: torch.stack([(masks.mask(name, task) * weights[name]).square().sum(1) for task in ids.tolist()])
                for name in masks.places
            }
        raise InputError(
            f"ConnectionStrength finds no connection of single tasks to shared layers in the phase {update.phase.name} "
            f"(strength {self.strength}); every phase needs some. Choose another balancer, or, if the agent takes it, "
            "add --agent.task_gain true, --agent.output_heads per_task, a sharing with masks, or soft modules with "
            "--agent.routing task."
        )

    def _feature_variance(self, update: MultiTaskUpdate) -> Tensor:
        """Variance `[T, F]` of every feature over the valid positions of each task."""
        with torch.no_grad():
            losses = update.losses()
        assert losses.features is not None and losses.valid is not None
        features, valid = losses.features.flatten(1, 2), losses.valid.flatten(1)[..., None]
        count = valid.sum(1).clamp(min=1)
        mean = (features * valid).sum(1) / count
        return ((features - mean[:, None]).square() * valid).sum(1) / count


def top_task(strengths: Tensor) -> Tensor:
    """The task with priority on every channel `[channels]`, from strengths `[T, channels]` (equations 6 to 10).

    Each task's strengths are made to sum to one over the layer, so that none can own all of it by its scale.
    """
    shares = strengths / strengths.sum(1, keepdim=True).clamp(min=torch.finfo(strengths.dtype).tiny)
    return shares.argmax(0)


def conserved_priority(rows: Tensor, top: Tensor) -> Tensor:
    """What is to be added to the sum of the gradients, so that no task conflicts with the one that has priority.

    Args:
        rows: Gradients of one layer, `[T, channels, inputs]`.
        top: Task with priority on every channel, `[channels]`.

    Returns:
        `[channels, inputs]`: the reference gradients, times how much the projections of the others add of them. Zero if
        one task has priority everywhere.
    """
    if (top == top[0]).all():
        return torch.zeros_like(rows[0])
    tasks, channels = rows.shape[:2]
    reference = rows[top, torch.arange(channels, device=rows.device)]
    products = torch.einsum("pc,jpc->pj", reference, rows)
    grouped = products.new_zeros(tasks, tasks).index_add_(0, top, products)  # entry (i, j): on the channels of task i
    squares = grouped.diagonal()
    added = grouped.clamp(max=0).neg().sum(1) / squares.clamp(min=torch.finfo(squares.dtype).tiny)
    return torch.where(squares > 0, added, 0.0)[top][:, None] * reference
