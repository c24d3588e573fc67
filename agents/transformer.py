"""The transformer that sequence policies are built from."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

KeysValues = tuple[Tensor, Tensor]
FeedForward = Callable[[Tensor], Tensor]
"""What a block adds to its tokens besides attention: from them, normalised, `[M, S, width]` to the same shape."""


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
        self,
        tokens: Tensor,
        last_only: bool = False,
        feed_forwards: Sequence[FeedForward] = (),
        before: Sequence[KeysValues] = (),
    ) -> Tensor:
        """Transforms tokens `[M, S, width]`.

        Args:
            tokens: M sequences of S tokens.
            last_only: Compute the last block only for the newest token.
            feed_forwards: Of each block, in place of its own; or none.
            before: Keys and values of tokens that come before these, from `keys_values`, or none.

        Returns:
            `[M, S, width]`, or `[M, 1, width]` with `last_only`.
        """
        for number, block in enumerate(self.blocks, start=1):
            own = feed_forwards[number - 1] if feed_forwards else None
            seen = before[number - 1] if before else None
            tokens = block(tokens, last_only and number == len(self.blocks), own, seen)
        return self.norm(tokens)

    def scaled(self, gains: Sequence[Tensor]) -> list[FeedForward]:
        """The blocks' own feed-forward networks, with factors on their hidden units.

        Args:
            gains: `[M, 4 * width]` or, for each token, `[M, S, 4 * width]` for each block; or none.
        """
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        return [partial(block.feed_forward, gain=gain) for block, gain in zip(blocks, gains, strict=bool(gains))]

    def keys_values(self, tokens: Tensor, feed_forwards: Sequence[FeedForward] = ()) -> list[KeysValues]:
        """What later tokens attend to of these `[M, S, width]`, for each block: keys and values `[M, heads, S, w]`."""
        return self.extend(tokens, feed_forwards)[1]

    def extend(
        self, tokens: Tensor, feed_forwards: Sequence[FeedForward] = (), before: Sequence[KeysValues] = ()
    ) -> tuple[Tensor, list[KeysValues]]:
        """Transforms tokens `[M, S, width]` that follow others, and says what the next ones will attend to.

        Args:
            tokens: M sequences of S tokens.
            feed_forwards: See `forward`.
            before: Of the tokens before these, for each block; or none.

        Returns:
            The newest token's output `[M, 1, width]`, and keys and values `[M, heads, before + S, w]` for each block.
        """
        found = []
        for number, block in enumerate(self.blocks, start=1):
            assert isinstance(block, Block)
            own = feed_forwards[number - 1] if feed_forwards else None
            seen = before[number - 1] if before else None
            tokens, attended = block.extend(tokens, number == len(self.blocks), own, seen)
            found.append(attended)
        return self.norm(tokens), found


class Block(nn.Module):
    """Attention and a feed-forward network with ReLU, each on a normalised residual branch.

    Args:
        width: Size of a token.
        heads: Attention heads.
        dropout: Probability.
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

    def forward(
        self,
        tokens: Tensor,
        last_only: bool = False,
        feed_forward: FeedForward | None = None,
        before: KeysValues | None = None,
    ) -> Tensor:
        """Tokens `[M, S, width]` to the same shape, or to `[M, 1, width]` of the newest token."""
        return self.extend(tokens, last_only, feed_forward, before)[0]

    def extend(
        self,
        tokens: Tensor,
        last_only: bool = False,
        feed_forward: FeedForward | None = None,
        before: KeysValues | None = None,
    ) -> tuple[Tensor, KeysValues]:
        """As `forward`, and the keys and values that were attended to: those before and those of these tokens."""
        attended, seen = self._attend(self.norm_attention(tokens), last_only, before)
        tokens = (tokens[:, -1:] if last_only else tokens) + self._drop(attended)
        return tokens + self._drop((feed_forward or self.feed_forward)(self.norm_feed_forward(tokens))), seen

    def feed_forward(self, normed: Tensor, gain: Tensor | None = None) -> Tensor:
        """The block's own feed-forward network.

        Args:
            normed: `[M, S, width]`, all tokens of a pass or the newest ones.
            gain: Factors on the hidden units, `[M, 4 * width]`, or `[M, ..., 4 * width]` for all tokens of the pass.
        """
        hidden = self.expand(normed)
        if gain is not None:
            each = gain if gain.ndim == 3 else gain[:, None]
            hidden = hidden * each[:, -normed.shape[1] :]
        return self.contract(functional.relu(hidden))

    def _project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values = (
            part.view(*part.shape[:-1], self.heads, -1).transpose(1, 2)  # m s (h w) -> m h s w
            for part in self.queries_keys_values(tokens).chunk(3, -1)
        )
        return queries, keys, values

    def _attend(self, tokens: Tensor, last_only: bool, before: KeysValues | None) -> tuple[Tensor, KeysValues]:
        queries, keys, values = self._project(tokens)
        visible = None  # the plain causal mask: Deviation 1 of decision_transformer.py
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
            is_causal=bool(queries.shape[2] > 1) and visible is None,  # bool: sizes are tensors in a trace
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
