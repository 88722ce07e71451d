"""A decoder of bytes, small enough to be trained within seconds: a scenario's own model, and what loads it.

Shapes: B records, T positions, H heads, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Layer(nn.Module):
    """A layer of a transformer decoder that normalises first (Xiong et al. 2020, figure 1)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.inner, self.outer = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        normed_BTD = self.before(x_BTD)
        query, key, value = (
            layer(normed_BTD).unflatten(2, (self._heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed_BHTD = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x_BTD = x_BTD + self.out(mixed_BHTD.transpose(1, 2).flatten(2))
        return x_BTD + self.outer(functional.gelu(self.inner(self.between(x_BTD))))


class Net(nn.Module):
    """Logits of the next byte at each position. Padding stands behind a text, so no position before sees it."""

    def __init__(self, tokens: int, length: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*(_Layer(width, heads) for _ in range(layers)))
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, tokens)
        for one in (self.words, self.places):
            nn.init.normal_(one.weight, std=0.02)  # as GPT-2 has it

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 - given to every model of texts
        """Return logits, `(B, T, V)`."""
        place_BT = torch.arange(tokens.shape[1], device=tokens.device).expand(*tokens.shape)
        return self.head(self.last(self.layers(self.words(tokens) + self.places(place_BT))))


def net(shape: Any, width: int, layers: int, heads: int) -> nn.Module:
    """Return the decoder for records of a shape."""
    tokens = shape.inputs["tokens"]
    return Net(tokens.below, tokens.size[0], width, layers, heads)
