"""Branches of which every task learns to use one (Gao et al., 2024)."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtorl import InputError, checks
from mtorl.agents.networks.base import Backbone, Branches, check_network, check_sizes, over_inner_axes
from mtorl.agents.networks.soft_modules import ModuleLayer


class DMTG(Backbone):
    """Layers that all tasks share, then branches; every task learns by Gumbel-softmax which branch it uses.

    In training a task's loss is the mean of its losses on all branches, weighted with a draw of the Gumbel-softmax
    distribution of its logits; acting computes the most likely branch alone. What branches read tells them nothing of
    the task: give tasks in the same branch heads of their own (`output_heads=per_task`).

    Deviations from the paper:
    1. A task has one head, which reads each of the branches, instead of one for each branch.
    2. Where an agent's loss is none of imitation (actors and critics), not the losses but the features are mixed.
    3. The temperature can fall while training goes on.
    4. The choices can learn faster than the rest (`choice_rate`), where training is too short to make up their mind.
    5. There is no second stage of training after the choice: the branches that nobody chose are not computed any more.

    Source: Gao et al., DMTG: One-Shot Differentiable Multi-Task Grouping, 2024, section 3. Published temperatures: 2.5
    and 4, constant; weight of the entropy: 1.2 where it is used.

    Args:
        inputs: O.
        code: Z, at least the number of branches.
        branches: G.
        stem: Sizes of the layers that all tasks share; none if empty.
        hidden: Sizes of the layers of each branch.
        temperature: Of the Gumbel-softmax at first.
        final_temperature: What it falls to, geometrically; it is constant by default.
        anneal_steps: Training steps until it has fallen.
        entropy: Weight of the entropy of each task's choices in its loss.
        choice_rate: How many times faster than other parameters the logits move (with an optimizer such as Adam).
    """

    moves: Tensor

    def __init__(
        self,
        inputs: int,
        code: int,
        branches: int = 4,
        stem: Sequence[int] = (400, 400),
        hidden: Sequence[int] = (400,),
        temperature: float = 2.5,
        final_temperature: float | None = None,
        anneal_steps: int = 1000,
        entropy: float = 0.0,
        choice_rate: float = 1.0,
    ) -> None:
        super().__init__()
        check_network(self, code, hidden, branches=branches, anneal_steps=anneal_steps)
        if stem:
            check_sizes("DMTG: stem", stem)
        checks.within("[0.05, inf)", temperature=temperature, final_temperature=final_temperature)
        checks.within("[0, inf)", entropy=entropy)
        checks.within("(0, inf)", choice_rate=choice_rate)
        if branches > code:
            raise InputError(
                f"DMTG: branches is {branches}; expected at most {code}, the size of the tasks' vectors (with "
                "task_identity onehot: the number of tasks)."
            )
        self.number, self.size, self.entropy, self.rate = branches, hidden[-1], entropy, choice_rate
        self.temperatures, self.anneal_steps = (temperature, final_temperature or temperature), anneal_steps
        self.stem = nn.ModuleList([nn.Linear(before, after) for before, after in pairwise((inputs, *stem))])
        sizes = pairwise(((stem[-1] if stem else inputs), *hidden))
        self.layers = nn.ModuleList([ModuleLayer(branches, *each, number == 0) for number, each in enumerate(sizes)])
        self.choice = nn.Linear(code, branches, bias=False)
        nn.init.constant_(self.choice.weight, 1 / choice_rate)
        self.register_buffer("moves", torch.zeros((), dtype=torch.long))

    def maskable(self) -> list[nn.Module]:
        """Stem and branches."""
        return [self.stem, self.layers]

    @property
    def temperature(self) -> Tensor:
        """Of the Gumbel-softmax, after the moves that were made."""
        first, last = self.temperatures
        progress = (self.moves / self.anneal_steps).clamp(max=1)
        return first * (last / first) ** progress  # Deviation 3

    def logits(self, code: Tensor) -> Tensor:
        """Of the branches, `[T, G]`, from codes `[T, Z]`."""
        return self.rate * self.choice(code)  # Deviation 4

    def choices(self, code: Tensor) -> Tensor:
        """The branch of each task, `[T]`, from codes `[T, Z]`."""
        return self.logits(code).argmax(-1)

    def shares(self, code: Tensor) -> Tensor:
        """What each branch counts for each task, `[T, G]`; rows sum to one. A draw in training, one-hot otherwise."""
        logits = self.logits(code)
        if not self.training:
            ways = torch.arange(self.number, device=logits.device)
            return (logits.argmax(-1, keepdim=True) == ways).to(logits)  # as one_hot, which vmap does not know
        limit = torch.finfo(logits.dtype).eps
        noise = torch.rand_like(logits).clamp(limit, 1 - limit)
        return ((logits - (-noise.log()).log()) / self.temperature).softmax(-1)

    def branches(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Branches | None:
        """See `Backbone.branches`: in training, all of them."""
        if not self.training:
            return None
        outputs = self._outputs(observations)
        penalty = torch.zeros_like(code[:, 0])
        if self.entropy:
            likely = self.logits(code).softmax(-1)
            penalty = self.entropy * (torch.special.entr(likely) + torch.special.entr(1 - likely)).sum(-1)
        return Branches(outputs.unbind(-2), self.shares(code), penalty)  # Deviation 1: one head is to read them all

    def forward(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Tensor:
        """See `Backbone.forward`; there are no gains here."""
        shares = over_inner_axes(self.shares(code), observations)
        return (self._outputs(observations) * shares[..., None]).sum(-2)  # Deviation 2

    def _outputs(self, observations: Tensor) -> Tensor:
        """The features of every branch, `[..., G, F]`."""
        values = self._stem(observations).flatten(0, -2)
        for layer in self.layers:
            values = functional.relu(layer(values))
        return values.view(*observations.shape[:-1], self.number, self.size)

    def _stem(self, observations: Tensor) -> Tensor:
        values = observations
        for layer in self.stem:
            values = functional.relu(layer(values))
        return values

    def after_step(self) -> None:
        """See `Backbone.after_step`: the temperature falls."""
        self.moves += 1

    def mean_weights(self, observations: Tensor, code: Tensor) -> list[Tensor]:
        """See `Backbone.mean_weights`: how likely a task uses each branch."""
        return [self.logits(code).softmax(-1)]

    def prepared(self, code: Tensor, gains: Sequence[Tensor] = ()) -> Callable[[Tensor], Tensor]:
        """See `Backbone.prepared`: only the branches that some row uses are computed, for those rows."""
        chosen = self.choices(code)  # Deviation 5
        used = {branch: (chosen == branch).nonzero()[:, 0] for branch in sorted(set(chosen.tolist()))}

        def features(observations: Tensor) -> Tensor:
            values = self._stem(observations)
            if len(used) == 1:
                return self._branch(values, next(iter(used)))
            found = values.new_empty(*observations.shape[:-1], self.size)
            for branch, rows in used.items():
                found[rows] = self._branch(values[rows], branch)
            return found

        return features

    def _branch(self, values: Tensor, branch: int) -> Tensor:
        """What one branch makes of the stem's values `[N, S]`."""
        for layer in self.layers:
            assert isinstance(layer, ModuleLayer)
            weight, bias = layer.map_of(branch)
            values = functional.relu(functional.linear(values, weight, bias))
        return values
