"""A soft-modularized policy (Yang et al., 2020), trained to do what was recorded."""

from collections.abc import Sequence
from typing import Literal

import torch

from mtorl.agents.base import TaskLink
from mtorl.agents.feed_forward import FeedForwardPolicy
from mtorl.agents.heads import HeadMaker, OutputHeads, build_head
from mtorl.agents.networks.soft_modules import Routing, SoftModularMLP
from mtorl.agents.task_parts import TaskEncoder, TaskGains, TaskIdentity
from mtorl.datasets.spec import DataSpec


class SoftModular(FeedForwardPolicy):
    """Layers of modules that tasks mix in their own way; the mixtures are learned together with the modules.

    The published way of weighing tasks goes by the temperatures of online SAC, which nothing has here; its place takes
    the balancer `Uncertainty`, which learns the tasks' noise (with `distribution=deterministic`).

    Source: Yang et al., Multi-Task Reinforcement Learning with Soft Modularization, 2020. Published sizes: 2 modules in
    2 layers of 256, and 4 modules in 4 layers of 128.

    Args:
        spec: What is known of the data.
        modules: In each layer.
        layers: Of modules.
        width: Outputs of a module.
        base: Sizes of the layers before the modules.
        gating: Sizes of the routing network's layers.
        routing: Which mixture is used depends on observation and task (state) or on the task alone (task): then the
            modules of a task are merged for acting.
        distribution: Of actions: none, with the squared error (deterministic), or normal with a learned deviation
            (gaussian); acting takes its mean.
        task_identity: How the network is told its task: none, onehot or embed (a learned vector).
        output_heads: One last layer for all tasks (shared), one each (per_task), one for each group of `--grouping`
            (per_group), or one each without tanh (linear, for balancers that need it).
        head: Another head in place of these, see `mtorl list heads`.
        per_task_normalisation: Normalise observations with each task's own statistics.
        std_floor: Smallest standard deviation used for normalising.
        clip: Normalised observations are clipped to plus or minus this.
    """

    backbone: SoftModularMLP

    def __init__(
        self,
        spec: DataSpec,
        modules: int = 2,
        layers: int = 2,
        width: int = 256,
        base: Sequence[int] = (400, 400),
        gating: Sequence[int] = (256, 256),
        routing: Routing = "state",
        distribution: Literal["deterministic", "gaussian"] = "deterministic",
        task_identity: TaskIdentity = "onehot",
        output_heads: OutputHeads = "shared",
        head: HeadMaker | None = None,
        per_task_normalisation: bool = False,
        std_floor: float = 0.01,
        clip: float = 5.0,
    ) -> None:
        super().__init__(spec, per_task_normalisation, std_floor, clip)
        tasks = len(spec.task_names)
        encoder = TaskEncoder(task_identity, tasks)
        backbone = SoftModularMLP(spec.observation_dim, encoder.size, modules, layers, width, base, gating, routing)
        last = build_head(head, backbone.size, spec, output_heads, distribution)
        self.set_policy(encoder, backbone, TaskGains(tasks, ()), last)
        self.phases = (self.imitation(),)

    @torch.no_grad()
    def task_links(self) -> list[TaskLink]:
        """See `Agent.task_links`; routing is a connection where the task alone decides on it."""
        links = []
        if self.backbone.routing == "task":
            code = self.encoder(torch.arange(len(self.spec.task_names), device=self.observation_mean.device))
            for number, mixture in enumerate(self.backbone.router(None, code)):
                share = mixture.flatten(1, -2).square().mean(1) if mixture.ndim > 2 else mixture.square()
                rows = share.repeat_interleave(self.backbone.size, 1)
                links.append(TaskLink("route", f"backbone.layers.{number}.weight", rows))
        return links
