"""Two policies on one transformer: a decision transformer, and a soft-modularized policy that reads its features."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mtorl import checks
from mtorl.agents.base import Phase, TaskLosses
from mtorl.agents.decision_transformer import DecisionTransformer
from mtorl.agents.heads import HeadMaker, OutputHeads, build_head
from mtorl.agents.networks.soft_modules import Routing, SoftModularMLP
from mtorl.agents.parameters import ParameterSpace
from mtorl.datasets.batch import TaskBatch
from mtorl.datasets.spec import DataSpec

TRANSFORMER, MODULES = "transformer", "modules"
Order = Literal["together", "in_turn"]


class DualPolicy(DecisionTransformer):
    """A decision transformer, and modules that read what it says of the newest step, the observation and the task.

    Both are trained by imitation, each in a phase of its own; both phases move the transformer, unless it is frozen for
    the second. `mtorl evaluate RUN --act_with modules` plays one of them.

    Args:
        spec: What is known of the data.
        policy_modules: Modules in each layer of the second policy.
        policy_layers: Layers of modules of the second policy.
        policy_width: Outputs of a module of the second policy.
        policy_base: Sizes of the second policy's layers before the modules.
        policy_gating: Sizes of its routing network's layers.
        policy_routing: What its mixtures depend on: observation and task (state), or the task alone (task).
        order: Train both all the time (together), or the transformer for the first half and the modules for the second
            (in_turn; unless it is frozen, the transformer then moves on, and its own head no longer fits).
        freeze: The second policy does not move the transformer.
        act_with: Which policy acts unless another is asked for.
        output_heads: One last layer for all tasks (shared), one each (per_task), one for each group of `--grouping`
            (per_group), or one each without tanh (linear), of both policies.
        head: Another head in place of these, for each policy, see `mtorl list heads`.
        options: Of `DecisionTransformer`.
    """

    policies = (TRANSFORMER, MODULES)

    def __init__(
        self,
        spec: DataSpec,
        policy_modules: int = 2,
        policy_layers: int = 2,
        policy_width: int = 128,
        policy_base: Sequence[int] = (256,),
        policy_gating: Sequence[int] = (128,),
        policy_routing: Routing = "state",
        order: Order = "together",
        freeze: bool = False,
        act_with: Literal["transformer", "modules"] = "modules",
        output_heads: OutputHeads = "shared",
        head: HeadMaker | None = None,
        **options: Any,
    ) -> None:
        super().__init__(spec, output_heads=output_heads, head=head, **options)
        checks.one_of("order", order, Order)
        self.frozen = freeze
        self.choose(act_with)
        first = list(self.children())
        self.modular = SoftModularMLP(
            self.width + spec.observation_dim,
            self.encoder.size,
            policy_modules,
            policy_layers,
            policy_width,
            policy_base,
            policy_gating,
            policy_routing,
        )
        self.modular_head = build_head(head, policy_width, spec, output_heads)
        self.phases = self._both_phases(first, order)

    def _both_phases(self, first: list[nn.Module], order: Order) -> tuple[Phase, Phase]:
        """The phase of each policy; `first` are the parts of the agent that the transformer's moves."""
        second: list[nn.Module] = [self.modular, self.modular_head]
        own = [self.encoder, self.gains, *self.head.private(), *self.modular_head.private()]
        maskable = self.modular.maskable()
        if not self.frozen:
            second += [part for part in first if part is not self.head]
            maskable = [self.backbone, *maskable]
        spaces = (
            ParameterSpace(self, own, [self.backbone], first),
            ParameterSpace(self, own, maskable, second),
        )
        middle = 0.5 if order == "in_turn" else None
        return (
            Phase(TRANSFORMER, self._losses, spaces[0], nn.ModuleList(first), stop=middle or 1.0),
            Phase(MODULES, self._modular_losses, spaces[1], nn.ModuleList(second), start=middle or 0.0),
        )

    @property
    def acting_phases(self) -> tuple[str, ...]:
        """The phase of the policy that acts, and that of the transformer if the other does not move it."""
        return self.policies if self.frozen and self.act_with == MODULES else (str(self.act_with),)

    def choose(self, policy: str) -> None:
        """See `Agent.choose`."""
        checks.one_of("act_with", policy, self.policies)
        self.act_with = policy

    @torch.no_grad()
    def routing(self, batch: TaskBatch) -> list[Tensor]:
        """See `Agent.routing`: of the blocks, if they have modules, and of the second policy."""
        seen = torch.cat([self._features(batch), self.normalise(batch.observations, batch.task_ids)], -1)
        return [*super().routing(batch), *self.modular.mean_weights(seen, self.encoder(batch.task_ids))]

    def _modular_losses(self, batch: TaskBatch) -> TaskLosses:
        if self.frozen:
            with torch.no_grad():
                features = self._features(batch)
        else:
            features = self._features(batch)
        seen = torch.cat([features, self.normalise(batch.observations, batch.task_ids)], -1)
        return self.modular_head(self.modular(seen, self.encoder(batch.task_ids)), batch)

    def _decide(self, features: Tensor, newest: Tensor, tasks: Tensor) -> Tensor:
        """See `DecisionTransformer`."""
        if self.act_with == TRANSFORMER:
            return super()._decide(features, newest, tasks)
        outputs = self.modular(torch.cat([features, newest[:, : self.spec.observation_dim]], -1), self.encoder(tasks))
        return self.modular_head.act(outputs, tasks)
