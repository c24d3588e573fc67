"""Which group an episode belongs to, told from what happens in it. Reconstructed from the abstract of G-HarmoDT."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.episode import Demonstration
from mtorl.datasets.sampler import TaskSampler
from mtorl.schema import State

STD_FLOOR, CLIP = 0.01, 5.0


class GroupGate:
    """A small network that reads some steps of an episode and says which group's mask to use.

    It sees observations and the rewards that led to them, not actions: while the group is being found these are those
    of a mask that may be the wrong one. The features of the steps are averaged, so any number of them will do.

    Source: Hu et al., Task-Aware Harmony Multi-Task Decision Transformer, 2024 (abstract; the network is ours).

    Args:
        weights: Of the network, by name; from `fit`.
        steps: It looks at the first that many steps of an episode.
    """

    def __init__(self, weights: dict[str, Tensor], steps: int) -> None:
        self.weights, self.steps = weights, steps

    @property
    def groups(self) -> int:
        """G, groups that it tells apart."""
        return len(self.weights["out.bias"])

    @classmethod
    def fit(
        cls,
        sampler: TaskSampler,
        labels: list[int],
        width: int = 128,
        updates: int = 400,
        lr: float = 3e-3,
    ) -> tuple["GroupGate", float]:
        """Learns which task belongs to which group, from recorded steps.

        Half of the windows begin where their episodes do, and are cut off after a random number of steps: that is what
        is seen of an episode as it begins. The others are from anywhere, as in demonstrations.

        Args:
            sampler: Draws windows of all tasks, as long as the gate is to look.
            labels: `[T]`, the group of each task.
            width: Of the hidden layers.
            updates: Of the network.
            lr: Learning rate of Adam at first; it falls to zero along a cosine.

        Returns:
            The gate, and how often it was right in windows that were drawn after that.
        """
        gate = cls(_initial_weights(sampler, max(labels) + 1, width), sampler.length)
        optimizer = torch.optim.Adam([weight for weight in gate.weights.values() if weight.requires_grad], lr)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
        targets = torch.tensor(labels)
        for number in range(updates):
            scores = gate._of_batch(sampler.draw(beginnings=number % 2 == 0))
            loss = F.nll_loss(scores.flatten(0, 1), targets.repeat_interleave(scores.shape[1]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
        gate.weights = {name: weight.detach() for name, weight in gate.weights.items()}
        right = [
            (gate._of_batch(sampler.draw(beginnings)).argmax(-1) == targets[:, None]).float().mean()
            for beginnings in (True, False)
        ]
        return gate, float(torch.stack(right).mean())

    def _of_batch(self, batch: TaskBatch) -> Tensor:
        """Scores `[T, B, G]` of windows that are cut off after a random number of steps."""
        length = batch.valid.shape[-1]
        seen = torch.randint(1, length + 1, (*batch.valid.shape[:2], 1))
        return self(batch.observations, _earned(batch), batch.valid & (torch.arange(length) < seen))

    def __call__(self, observations: Tensor, rewards: Tensor, valid: Tensor | None = None) -> Tensor:
        """Logarithms of the groups' probabilities `[..., G]`.

        Args:
            observations: `[..., L, O]`.
            rewards: `[..., L]`, earned on the way to each observation; zero for the first, of which nothing is known.
            valid: bool `[..., L]`, steps to look at; all by default.
        """
        weights = self.weights
        values = ((_inputs(observations, rewards) - weights["mean"]) / weights["std"]).clamp(-CLIP, CLIP)
        for name in ("in", "hidden"):
            values = F.relu(F.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"]))
        if valid is None:
            pooled = values.mean(-2)
        else:
            count = valid.sum(-1, keepdim=True).clamp(min=1)
            pooled = (values * valid[..., None]).sum(-2) / count
        return F.log_softmax(F.linear(pooled, weights["out.weight"], weights["out.bias"]), -1)

    def of_demonstration(self, shown: Demonstration) -> int:
        """The group of a recorded episode: of all its windows together."""
        starts = range(0, len(shown.rewards), self.steps)
        scores = torch.zeros(self.groups)
        for start in starts:
            part = slice(start, start + self.steps)
            rewards = torch.tensor(shown.rewards[part]).roll(1)
            rewards[0] = 0
            scores += self(torch.tensor(shown.observations[part]), rewards)
        return int(scores.argmax())

    def state_dict(self) -> State:
        """The network and how many steps it looks at."""
        return {"weights": dict(self.weights), "steps": self.steps}

    @classmethod
    def from_state(cls, state: State) -> "GroupGate":
        """The inverse of `state_dict`."""
        return cls({name: value.cpu() for name, value in state["weights"].items()}, int(state["steps"]))


class GateChoice:
    """Which group each of N episodes belongs to: decided anew at each of the first steps, and then no more.

    Args:
        gate: The gate.
        rows: N.
        shown: A recorded episode of their task; then that alone decides.
    """

    def __init__(self, gate: GroupGate, rows: int, shown: Demonstration | None) -> None:
        self._gate, self._seen = gate, list[tuple[Tensor, Tensor]]()
        self.settled = shown is not None
        self._chosen = np.full(rows, gate.of_demonstration(shown) if shown is not None else 0)

    @torch.no_grad()
    def __call__(self, observations: NDArray[np.float32], rewards: NDArray[np.float32]) -> NDArray[np.int64]:
        """The groups `[N]`, after one more step; arguments as of `Agent.act`."""
        if not self.settled:
            self._seen.append((torch.tensor(observations), torch.tensor(rewards)))  # copies: buffers may be reused
            pairs = zip(*self._seen, strict=True)
            seen, earned = (torch.stack(values, 1) for values in pairs)
            self._chosen = self._gate(seen, earned).argmax(-1).numpy()
            self.settled = len(self._seen) == self._gate.steps
        return self._chosen


def _initial_weights(sampler: TaskSampler, groups: int, width: int) -> dict[str, Tensor]:
    """The network's moments of its inputs, from some batches, and weights that are to be learned."""
    batches = [sampler.draw(beginnings) for beginnings in (True, False) for _ in range(8)]
    inputs = torch.cat([_inputs(batch.observations, _earned(batch))[batch.valid] for batch in batches])
    size = inputs.shape[-1]
    floor = torch.full((size,), STD_FLOOR)
    floor[-1] = STD_FLOOR * float(inputs[:, -1].abs().max()) or 1.0  # rewards may be of any size
    weights = {"mean": inputs.mean(0), "std": inputs.std(0).maximum(floor)}
    for name, (rows, columns) in {"in": (width, size), "hidden": (width, width), "out": (groups, width)}.items():
        bound = columns**-0.5
        weights[f"{name}.weight"] = torch.empty(rows, columns).uniform_(-bound, bound).requires_grad_()
        weights[f"{name}.bias"] = torch.zeros(rows).requires_grad_()
    return weights


def _earned(batch: TaskBatch) -> Tensor:
    """Rewards `[T, B, L]` on the way to each observation of a window, zero for its first."""
    rewards = batch.rewards.roll(1, -1)
    rewards[..., 0] = 0
    return rewards


def _inputs(observations: Tensor, rewards: Tensor) -> Tensor:
    return torch.cat([observations, rewards[..., None]], -1)
