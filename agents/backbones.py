"""Networks that agents are built from."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class MLP(nn.Sequential):
    """Linear layers, each followed by ReLU.

    Args:
        inputs: Size of the input.
        hidden: Sizes of the layers.
    """

    def __init__(self, inputs: int, hidden: tuple[int, ...]) -> None:
        sizes = (inputs, *hidden)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers)


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

    def forward(self, tokens: Tensor, last_only: bool = False) -> Tensor:
        """Transforms tokens `[M, S, width]`.

        Args:
            tokens: M sequences of S tokens.
            last_only: Compute the last block only for the newest token.

        Returns:
            `[M, S, width]`, or `[M, 1, width]` with `last_only`.
        """
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, last_only and number == len(self.blocks))
        return self.norm(tokens)


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

    def forward(self, tokens: Tensor, last_only: bool = False) -> Tensor:
        """Tokens `[M, S, width]` to the same shape, or to `[M, 1, width]` of the newest token."""
        attended = self._attend(self.norm_attention(tokens), last_only)
        tokens = (tokens[:, -1:] if last_only else tokens) + self._drop(attended)
        hidden = functional.relu(self.expand(self.norm_feed_forward(tokens)))
        return tokens + self._drop(self.contract(hidden))

    def _attend(self, tokens: Tensor, last_only: bool) -> Tensor:
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # m s (h w) -> m h s w
            for part in self.queries_keys_values(tokens).chunk(3, -1)
        )
        if last_only:
            queries = queries[:, :, -1:]
        mixed = functional.scaled_dot_product_attention(
            queries, keys, values, dropout_p=self.dropout if self.training else 0.0, is_causal=not last_only
        )
        return self.mix(mixed.transpose(1, 2).flatten(2))

    def _drop(self, values: Tensor) -> Tensor:
        return functional.dropout(values, self.dropout, self.training) if self.dropout else values


def initialise_transformer(module: nn.Module) -> None:
    """Normal weights of standard deviation 0.02 and zero biases for every linear layer and table (GPT-2)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            torch.nn.init.normal_(part.weight, std=0.02)
            torch.nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            torch.nn.init.normal_(part.weight, std=0.02)
