"""Which parameters tasks share, and their place in one flat vector."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn


class ParameterSpace:
    """The shared parameters of one phase, in a fixed order. Membership is explicit: nothing is found by its name.

    Frozen parameters (`requires_grad=False`) are in no space. Which ones are is read when the space is first used:
    until then an agent's constructor may freeze some after the space was made, or thaw them.

    Args:
        module: The agent.
        private: Modules whose parameters belong to single tasks (per-task heads, task embeddings); left out.
        maskable: Modules whose weight matrices masks may switch off.
        parts: Modules whose parameters the phase moves; all of the agent by default.
        mixed: Modules whose weights differ by task already: each task mixes them, or has those of its group.
    """

    def __init__(
        self,
        module: nn.Module,
        private: Iterable[nn.Module] = (),
        maskable: Iterable[nn.Module] = (),
        parts: Iterable[nn.Module] | None = None,
        mixed: Iterable[nn.Module] = (),
    ) -> None:
        left_out = {id(parameter) for part in private for parameter in part.parameters()}
        matrices = {id(parameter) for part in maskable for parameter in part.parameters() if parameter.ndim == 2}
        moved = {id(parameter) for part in parts or [module] for parameter in part.parameters()} - left_out
        self._module = module
        self._maskable = {name: id(it) in matrices for name, it in module.named_parameters() if id(it) in moved}
        differing = {id(parameter) for part in mixed for parameter in part.parameters()}
        self._mixed = {name for name, it in module.named_parameters() if id(it) in differing}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the shared parameters within the agent."""
        return tuple(name for name in self._maskable if self._module.get_parameter(name).requires_grad)

    @cached_property
    def shapes(self) -> tuple[torch.Size, ...]:
        """Their shapes."""
        return tuple(self._module.get_parameter(name).shape for name in self.names)

    @cached_property
    def maskable(self) -> tuple[bool, ...]:
        """Whether masks may touch each of them."""
        return tuple(self._maskable[name] for name in self.names)

    @cached_property
    def mixed(self) -> tuple[bool, ...]:
        """Whether each of them differs by task already: tasks mix it, or have that of their group."""
        return tuple(name in self._mixed for name in self.names)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each begins in the flat vector; one more entry than names, the last is P."""
        return tuple(accumulate((shape.numel() for shape in self.shapes), initial=0))

    def __len__(self) -> int:
        """P, the number of shared scalars."""
        return self.offsets[-1]

    def slice_of(self, name: str) -> slice:
        """Where a parameter stands in the flat vector."""
        place = self.names.index(name)
        return slice(self.offsets[place], self.offsets[place + 1])

    def values(self) -> dict[str, Tensor]:
        """The shared parameters as they are now, by name, in order."""
        return self.select(self._module)

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


def held(module: nn.Module, moved: nn.Module | None = None) -> Callable[..., Any]:
    """A module as a function whose parameters no gradient reaches, but for those of `moved`, a part of it."""
    reached = {id(it) for it in moved.parameters()} if moved is not None else set()
    fixed = {name: value.detach() for name, value in module.named_parameters() if id(value) not in reached}
    return lambda *inputs, **options: torch.func.functional_call(module, fixed, inputs, options)
