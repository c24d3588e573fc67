"""Which parameters tasks share, and their place in one flat vector."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn


class ParameterSpace:
    """The shared parameters of one phase, in a fixed order. Membership is explicit: nothing is found by its name.

    Args:
        module: The agent.
        private: Modules whose parameters belong to single tasks (per-task heads, task embeddings); left out.
        maskable: Modules whose weight matrices masks may switch off.
        parts: Modules whose parameters the phase moves; all of the agent by default.

    Attributes:
        names: Names of the shared parameters within the agent.
        shapes: Their shapes.
        offsets: Where each begins in the flat vector; one more entry than names, the last is P.
        maskable: Whether masks may touch each of them.
    """

    def __init__(
        self,
        module: nn.Module,
        private: Iterable[nn.Module] = (),
        maskable: Iterable[nn.Module] = (),
        parts: Iterable[nn.Module] | None = None,
    ) -> None:
        left_out = {id(parameter) for part in private for parameter in part.parameters()}
        matrices = {id(parameter) for part in maskable for parameter in part.parameters() if parameter.ndim == 2}
        moved = {id(parameter) for part in parts or [module] for parameter in part.parameters()} - left_out
        shared = [(name, value) for name, value in module.named_parameters() if id(value) in moved]
        self.names: tuple[str, ...] = tuple(name for name, _ in shared)
        self.shapes: tuple[torch.Size, ...] = tuple(value.shape for _, value in shared)
        self.maskable: tuple[bool, ...] = tuple(id(value) in matrices for _, value in shared)
        sizes = torch.tensor([0] + [value.numel() for _, value in shared])
        self.offsets: tuple[int, ...] = tuple(torch.cumsum(sizes, 0).tolist())

    def __len__(self) -> int:
        """P, the number of shared scalars."""
        return self.offsets[-1]

    def slice_of(self, name: str) -> slice:
        """Where a parameter stands in the flat vector."""
        place = self.names.index(name)
        return slice(self.offsets[place], self.offsets[place + 1])

    def select(self, module: nn.Module) -> dict[str, Tensor]:
        """The shared parameters of a module, by name, in order."""
        everything = dict(module.named_parameters())
        return {name: everything[name] for name in self.names}

    def flatten(self, values: Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:
        """One vector `[P]` of values given by name or in order."""
        ordered = [values[name] for name in self.names] if isinstance(values, Mapping) else values
        return torch.cat([value.reshape(-1) for value in ordered])

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of a vector `[P]` in the parameters' shapes, by name."""
        return {
            name: vector[start:stop].view(shape)
            for name, shape, start, stop in zip(
                self.names, self.shapes, self.offsets[:-1], self.offsets[1:], strict=True
            )
        }
