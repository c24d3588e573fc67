"""What a decision transformer keeps while it acts: the last steps of its episodes, and what was worked out for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mtorl.agents.returns import ReturnRange
from mtorl.agents.transformer import KeysValues


class History:
    """The last K steps of N episodes in buffers of length 2K: a window is a view, nothing grows.

    Args:
        length: K.
        inputs: Numbers of an observation, with the task's vector.
        actions: A.
        returns: Of the N episodes; its target is the return that is asked for.
    """

    def __init__(self, length: int, inputs: int, actions: int, returns: ReturnRange) -> None:
        like, rows, size = returns.scale, len(returns.scale), 2 * length
        self._length = length
        self._observations = like.new_zeros(rows, size, inputs)
        self._actions = like.new_zeros(rows, size, actions)
        self._returns = like.new_zeros(rows, size)
        self._timesteps = torch.zeros(rows, size, dtype=torch.long, device=like.device)
        self._scale, self._left = returns.scale, returns.target.clone()
        self._least, self._most = returns.limits
        self._next = self._step = 0

    def observe(self, observations: Tensor, rewards: Tensor) -> None:
        """Adds the newest inputs `[N, O + task]`; the rewards `[N]` were earned on the way to them."""
        if self._next == self._observations.shape[1]:
            keep = self._length - 1
            for buffer in (self._observations, self._actions, self._returns, self._timesteps):
                buffer[:, :keep] = buffer[:, -keep:].clone() if keep else buffer[:, :0]
            self._next = keep
        self._left -= rewards
        self._observations[:, self._next] = observations
        # within what the data show, or between these and the target: deviation 5 of decision_transformer.py
        self._returns[:, self._next] = self._left.clamp(self._least, self._most) / self._scale
        self._timesteps[:, self._next] = self._step
        self._actions[:, self._next] = 0
        self._next += 1
        self._step += 1

    def acted(self, actions: Tensor) -> None:
        """Writes the action `[N, A]` that answered the newest observation."""
        self._actions[:, self._next - 1] = actions

    def window(self, steps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Observations, returns, actions and timesteps of the last steps, or of all if there are fewer."""
        part = slice(max(self._next - steps, 0), self._next)
        return self._observations[:, part], self._returns[:, part], self._actions[:, part], self._timesteps[:, part]


@dataclass
class TransformerRollout:
    """A block of N episodes that is being played.

    Attributes:
        tasks: int64 `[N]`.
        history: Their last steps.
        anchored: What was worked out for earlier steps is kept.
        prompt: `[N, P, width]`, tokens in front of the window, or none.
        before: Of each block the keys and values of the prompt, or none.
        kept: Likewise of the prompt and the steps that are kept, if anchored.
        length: Steps that are kept.
    """

    tasks: Tensor
    history: History
    anchored: bool
    prompt: Tensor | None = None
    before: Sequence[KeysValues] = ()
    kept: Sequence[KeysValues] = ()
    length: int = 0
