"""Feed-forward networks that a policy or a critic can be made of. A new one is one file and one line here.

A network is named with its options, as an agent is: `--agent.network PaCo --agent.network.components 3`.
"""

from collections.abc import Callable, Sequence

from mtorl.agents.backbones import Backbone, MLPBackbone
from mtorl.agents.care import CARE
from mtorl.agents.film import FiLM
from mtorl.agents.moore import MOORE
from mtorl.agents.paco import PaCo
from mtorl.agents.soft_modules import SoftModularMLP

__all__ = ["CARE", "MOORE", "Backbone", "FiLM", "MLPBackbone", "Network", "PaCo", "SoftModularMLP", "build_network"]

Network = Callable[[int, int], Backbone]
"""Makes a backbone that reads so many numbers, and a vector of that size for the task."""


def build_network(network: Network | None, inputs: int, code: int, hidden: Sequence[int] = (256, 256)) -> Backbone:
    """The network, or linear layers of these sizes if none is named."""
    return MLPBackbone(inputs, code, hidden) if network is None else network(inputs, code)
