"""Which feed-forward network an actor or critic is, as a setting."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from mtorl import InputError
from mtorl.agents.backbones import Backbone, MLPBackbone
from mtorl.agents.soft_modules import Routing, SoftModularMLP

NetworkKind = Literal["mlp", "soft_modular"]


@dataclass(frozen=True)
class NetworkSettings:
    """A feed-forward network.

    Attributes:
        kind: Linear layers (mlp), or layers of modules that tasks mix (soft_modular).
        hidden: Sizes of the layers, for mlp.
        modules: In each layer, for soft_modular.
        layers: Of modules.
        width: Outputs of a module.
        base: Sizes of the layers before the modules.
        gating: Sizes of the routing network's layers.
        routing: What mixtures depend on: observation and task (state), or the task alone (task).
    """

    kind: NetworkKind = "mlp"
    hidden: Sequence[int] = (256, 256)
    modules: int = 2
    layers: int = 2
    width: int = 256
    base: Sequence[int] = (400, 400)
    gating: Sequence[int] = (256, 256)
    routing: Routing = "state"

    def __post_init__(self) -> None:
        if self.kind not in get_args(NetworkKind):
            raise InputError(f"network kind is {self.kind!r}; expected one of {', '.join(get_args(NetworkKind))}.")
        others = [name for name in vars(self) if (name == "hidden") == (self.kind == "soft_modular") and name != "kind"]
        usual = {entry.name: entry.default for entry in fields(self)}
        idle = [name for name in others if _plain(getattr(self, name)) != _plain(usual[name])]
        if idle:
            raise InputError(f"a network of kind {self.kind} has no {', '.join(idle)}. Leave it out, or set its kind.")

    def build(self, inputs: int, code: int) -> Backbone:
        """A network that reads so many numbers, and a code of that size for the task."""
        if self.kind == "mlp":
            return MLPBackbone(inputs, code, self.hidden)
        return SoftModularMLP(inputs, code, self.modules, self.layers, self.width, self.base, self.gating, self.routing)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
