"""What a feed-forward network of a policy or a critic offers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mtorl import InputError, checks


@dataclass(frozen=True)
class Branches:
    """Several ways through a network; a task's loss is the weighted mean of its losses on them.

    Attributes:
        features: Of each of G ways, `[T, ..., F]`.
        shares: `[T, G]`, the weights; rows sum to one.
        penalty: `[T]`, what is added to the tasks' losses.
    """

    features: Sequence[Tensor]
    shares: Tensor
    penalty: Tensor


class Backbone(nn.Module, ABC):
    """From what is observed and a vector that stands for the task to features.

    Attributes:
        size: F, number of features.
    """

    size: int

    @abstractmethod
    def forward(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Tensor:
        """Features `[T, ..., F]`.

        Args:
            observations: `[T, ..., O]`, normalised.
            code: `[T, Z]`, a vector of each task; Z may be 0.
            gains: `[T, size]`, factors of each task on the outputs of each layer that has gains, or none.
        """

    @abstractmethod
    def maskable(self) -> list[nn.Module]:
        """The parts whose weight matrices masks may switch off."""

    def mixed(self) -> list[nn.Module]:
        """The parts whose weights every task mixes for itself; none by default."""
        return []

    def branches(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Branches | None:
        """The ways on which losses are to be mixed, arguments as of `forward`; None where there is only one."""
        return None

    def after_step(self) -> None:
        """Called after each move of its parameters."""
        return

    def mean_weights(self, observations: Tensor, code: Tensor) -> list[Tensor]:
        """How tasks mix parts, layer by layer: probabilities `[T, ..., n]`, means over observations `[T, B, L, O]`."""
        return []

    def prepared(self, code: Tensor, gains: Sequence[Tensor] = ()) -> Callable[[Tensor], Tensor]:
        """The features of observations `[N, O]` of episodes with these codes `[N, Z]`, for acting."""
        return lambda observations: self(observations, code, gains)


Network = Callable[[int, int], Backbone]
"""Makes a backbone that reads so many numbers, and a vector of that size for the task."""


def over_inner_axes(each: Tensor, values: Tensor) -> Tensor:
    """A vector of each task `[T, S]` as `[T, 1, ..., S]`, with as many axes as values `[T, ..., F]` have."""
    return each.view(each.shape[0], *[1] * (values.ndim - 2), each.shape[-1])


def check_network(network: Backbone, code: int, hidden: Sequence[int], **numbers: int) -> None:
    """Refuses impossible settings of a network that needs the task's vector.

    Raises:
        InputError: There is no vector, a layer has no units, or one of the named numbers is below 1.
    """
    name = type(network).__name__
    if not code:
        raise InputError(f"{name} needs a vector for each task; found none. Use task_identity onehot or embed.")
    check_sizes(f"{name}: hidden", hidden)
    checks.at_least(1, **{f"{name}: {option}": value for option, value in numbers.items()})


def check_sizes(name: str, sizes: Sequence[int]) -> None:
    """Refuses sizes of layers that are none, or not positive. Raises InputError as `checks.within` does."""
    if not sizes or min(sizes) < 1:
        raise InputError(f"{name} is {list(sizes)}; expected one or more positive layer sizes.")
