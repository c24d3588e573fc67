"""Networks that agents are built from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtorl import InputError

KeysValues = tuple[Tensor, Tensor]


class TaskGains(nn.Module):
    """A factor of each task for every output of some shared layers; all one at first.

    Args:
        tasks: T.
        sizes: Outputs of each layer.
    """

    def __init__(self, tasks: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.values = nn.ParameterList([torch.ones(tasks, size) for size in sizes])

    def task_rows(self) -> list[nn.Parameter]:
        """Parameters whose first axis is the task."""
        return list(self.values)

    def forward(self, task_ids: Tensor) -> list[Tensor]:
        """The factors `[T, size]` of these tasks `[T]` for each layer."""
        return [value[task_ids] for value in self.values]


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

    def mean_weights(self, observations: Tensor, code: Tensor) -> list[Tensor]:
        """How tasks mix parts, layer by layer: probabilities `[T, ..., n]`, means over observations `[T, B, L, O]`."""
        return []

    def prepared(self, code: Tensor, gains: Sequence[Tensor] = ()) -> Callable[[Tensor], Tensor]:
        """The features of observations `[N, O]` of episodes with these codes `[N, Z]`, for acting."""
        return lambda observations: self(observations, code, gains)


class MLPBackbone(Backbone):
    """Linear layers, each followed by ReLU, on observation and code.

    Args:
        inputs: O.
        code: Z.
        hidden: Sizes of the layers.
    """

    def __init__(self, inputs: int, code: int, hidden: Sequence[int]) -> None:
        super().__init__()
        if not hidden or min(hidden) < 1:
            raise InputError(f"hidden is {list(hidden)}; expected one or more positive layer sizes.")
        self.size = hidden[-1]
        self.layers = nn.ModuleList([nn.Linear(before, after) for before, after in pairwise((inputs + code, *hidden))])

    def maskable(self) -> list[nn.Module]:
        """All layers."""
        return [self.layers]

    def forward(self, observations: Tensor, code: Tensor, gains: Sequence[Tensor] = ()) -> Tensor:
        """See `Backbone.forward`."""
        code = over_inner_axes(code, observations).expand(*observations.shape[:-1], -1)
        values = torch.cat([observations, code], -1)
        for number, layer in enumerate(self.layers):
            values = layer(values)
            if gains:
                values = values * over_inner_axes(gains[number], values)
            values = functional.relu(values)
        return values


def over_inner_axes(each: Tensor, values: Tensor) -> Tensor:
    """A vector of each task `[T, S]` as `[T, 1, ..., S]`, with as many axes as values `[T, ..., F]` have."""
    return each.view(len(each), *[1] * (values.ndim - 2), each.shape[-1])


def check_network(network: Backbone, code: int, hidden: Sequence[int], **numbers: int) -> None:
    """Refuses impossible settings of a network that needs the task's vector.

    Raises:
        InputError: There is no vector, a layer has no units, or one of the named numbers is below 1.
    """
    name = type(network).__name__
    if not code:
        raise InputError(f"{name} needs a vector for each task; found none. Use task_identity onehot or embed.")
    if not hidden or min(hidden) < 1:
        raise InputError(f"{name}: hidden is {list(hidden)}; expected one or more positive layer sizes.")
    for option, value in numbers.items():
        if value < 1:
            raise InputError(f"{name}: {option} is {value}; expected at least 1.")


class CausalTransformer(nn.Module):
    """Pre-norm transformer in which a token sees itself and the tokens before it.

    There is no key padding mask: windows are padded at their end, which the causal mask already hides.

    Args:
        width: Size of a token.
        layers: Number of blocks.
        heads: Attention heads; must divide `width`.
        dropout: Probability, on attention weights and residual branches.
    """

    def __init__(self, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, last_only: bool = False, gains: Sequence[Tensor] = (), before: Sequence[KeysValues] = ()
    ) -> Tensor:
        """Transforms tokens `[M, S, width]`.

        Args:
            tokens: M sequences of S tokens.
            last_only: Compute the last block only for the newest token.
            gains: `[M, 4 * width]` or, for each token, `[M, S, 4 * width]` for each block, or none.
            before: Keys and values of tokens that come before these, from `keys_values`, or none.

        Returns:
            `[M, S, width]`, or `[M, 1, width]` with `last_only`.
        """
        for number, block in enumerate(self.blocks, start=1):
            gain = gains[number - 1] if gains else None
            seen = before[number - 1] if before else None
            tokens = block(tokens, last_only and number == len(self.blocks), gain, seen)
        return self.norm(tokens)

    def keys_values(self, tokens: Tensor, gains: Sequence[Tensor] = ()) -> list[KeysValues]:
        """What later tokens attend to of these `[M, S, width]`, for each block: keys and values `[M, heads, S, w]`."""
        return self.extend(tokens, gains)[1]

    def extend(
        self, tokens: Tensor, gains: Sequence[Tensor] = (), before: Sequence[KeysValues] = ()
    ) -> tuple[Tensor, list[KeysValues]]:
        """Transforms tokens `[M, S, width]` that follow others, and says what the next ones will attend to.

        Args:
            tokens: M sequences of S tokens.
            gains: See `forward`.
            before: Of the tokens before these, for each block; or none.

        Returns:
            The newest token's output `[M, 1, width]`, and keys and values `[M, heads, before + S, w]` for each block.
        """
        found = []
        for number, block in enumerate(self.blocks, start=1):
            assert isinstance(block, Block)
            gain = gains[number - 1] if gains else None
            seen = before[number - 1] if before else None
            tokens, attended = block.extend(tokens, number == len(self.blocks), gain, seen)
            found.append(attended)
        return self.norm(tokens), found


class Block(nn.Module):
    """Attention and a feed-forward network with ReLU, each on a normalised residual branch.

    Args:
        width: Size of a token.
        heads: Attention heads.
        dropout: Probability.

    Attributes:
        experts: Adds to the feed-forward network: called with its input, and with the gain, which is then its own.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.experts: nn.Module | None = None

    def forward(
        self,
        tokens: Tensor,
        last_only: bool = False,
        gain: Tensor | None = None,
        before: KeysValues | None = None,
    ) -> Tensor:
        """Tokens `[M, S, width]` to the same shape, or to `[M, 1, width]` of the newest token."""
        return self.extend(tokens, last_only, gain, before)[0]

    def extend(
        self,
        tokens: Tensor,
        last_only: bool = False,
        gain: Tensor | None = None,
        before: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """As `forward`, and the keys and values that were attended to: those before and those of these tokens."""
        attended, seen = self._attend(self.norm_attention(tokens), last_only, before)
        tokens = (tokens[:, -1:] if last_only else tokens) + self._drop(attended)
        normed = self.norm_feed_forward(tokens)
        hidden = self.expand(normed)
        if self.experts is not None:
            return tokens + self._drop(self.contract(functional.relu(hidden)) + self.experts(normed, gain)), seen
        if gain is not None:
            each = gain if gain.ndim == 3 else gain[:, None]
            hidden = hidden * (each[:, -1:] if last_only else each)
        return tokens + self._drop(self.contract(functional.relu(hidden))), seen

    def _project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # m s (h w) -> m h s w
            for part in self.queries_keys_values(tokens).chunk(3, -1)
        )
        return queries, keys, values

    def _attend(self, tokens: Tensor, last_only: bool, before: KeysValues | None) -> tuple[Tensor, KeysValues]:
        queries, keys, values = self._project(tokens)
        visible = None  # the plain causal mask
        if before is not None:
            keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
            size, earlier = queries.shape[2], before[0].shape[2]
            visible = torch.ones(size, earlier + size, dtype=torch.bool, device=tokens.device).tril(earlier)
        if last_only or queries.shape[2] == 1:
            queries, visible = queries[:, :, -1:], None
        mixed = functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=visible,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=queries.shape[2] > 1 and visible is None,
        )
        return self.mix(mixed.transpose(1, 2).flatten(2)), (keys, values)

    def _drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.dropout, self.training) if self.dropout else values


def initialise_transformer(module: nn.Module) -> None:
    """Normal weights of standard deviation 0.02 and zero biases for every linear layer and table (GPT-2)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            torch.nn.init.normal_(part.weight, std=0.02)
            if part.bias is not None:
                torch.nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            torch.nn.init.normal_(part.weight, std=0.02)
