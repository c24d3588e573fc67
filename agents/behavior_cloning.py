"""Multi-task behavior cloning: a feed-forward network from observation and task to action."""

from collections.abc import Sequence

from mtorl import InputError
from mtorl.agents.base import TaskLink
from mtorl.agents.feed_forward import FeedForwardPolicy
from mtorl.agents.heads import HeadMaker, OutputHeads, build_head
from mtorl.agents.networks import Network, build_network
from mtorl.agents.networks.mlp import MLPBackbone
from mtorl.agents.task_parts import TaskEncoder, TaskGains, TaskIdentity
from mtorl.datasets.spec import DataSpec


class BehaviorCloning(FeedForwardPolicy):
    """Regression of the recorded actions (Pomerleau, 1988) with a network that tasks share.

    Args:
        spec: What is known of the data.
        hidden: Sizes of the hidden layers, unless a network is named.
        network: Another network in place of these layers, see `mtorl list networks`.
        task_identity: How the network is told its task: none, onehot or embed (a learned vector).
        output_heads: One last layer for all tasks (shared), one each (per_task), one for each group of `--grouping`
            (per_group), or one each without tanh (linear, for balancers that need it).
        head: Another head in place of these, see `mtorl list heads`.
        task_gain: A learned factor of each task on every hidden unit.
        per_task_normalisation: Normalise observations with each task's own statistics.
        std_floor: Smallest standard deviation used for normalising.
        clip: Normalised observations are clipped to plus or minus this.
    """

    def __init__(
        self,
        spec: DataSpec,
        hidden: Sequence[int] = (400, 400, 400),
        network: Network | None = None,
        task_identity: TaskIdentity = "onehot",
        output_heads: OutputHeads = "shared",
        head: HeadMaker | None = None,
        task_gain: bool = False,
        per_task_normalisation: bool = False,
        std_floor: float = 0.01,
        clip: float = 5.0,
    ) -> None:
        super().__init__(spec, per_task_normalisation, std_floor, clip)
        if network is not None and task_gain:
            raise InputError("task_gain belongs to the linear layers of `hidden`; leave it out, or the network.")
        tasks = len(spec.task_names)
        encoder = TaskEncoder(task_identity, tasks)
        backbone = build_network(network, spec.observation_dim, encoder.size, hidden)
        last = build_head(head, backbone.size, spec, output_heads)
        self.set_policy(encoder, backbone, TaskGains(tasks, hidden if task_gain else ()), last)
        self.phases = (self.imitation(),)

    def task_links(self) -> list[TaskLink]:
        """See `Agent.task_links`."""
        links = [
            TaskLink("gain", f"backbone.layers.{number}.weight", value.detach().square())
            for number, value in enumerate(self.gains.values)
        ]
        heads = self.head.strengths()
        if heads is not None and isinstance(self.backbone, MLPBackbone):
            links.append(TaskLink("head", f"backbone.layers.{len(self.backbone.layers) - 1}.weight", heads))
        return links
