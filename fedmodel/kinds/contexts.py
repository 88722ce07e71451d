"""The network of `fedmodel.kinds.models.ngram`: the next token from a few before it.

Whoever imports this imports torch.

Shapes: B batch, T positions, V tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional


class Ngram(nn.Module):
    """Embeddings of a position's token and of those before it, through hidden layers, to a logit of each next token.

    Guarantee: what is returned at a position is a function of the tokens at it and before it in the same record, as
    many as the context has. So no position sees what it foretells, and padding behind a text changes nothing before it.

    Args:
        tokens: How many there are.
        context: How many tokens the next one is foretold from.
        embedding: Width of a token's embedding.
        hidden: Widths of hidden layers.
    """

    def __init__(self, tokens: int, context: int, embedding: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.words = nn.Embedding(tokens, embedding)
        self.context = nn.Conv1d(embedding, hidden[0], context)
        self.layers = nn.Sequential(
            *(layer for widths in itertools.pairwise(hidden) for layer in (nn.ReLU(), nn.Linear(*widths)))
        )
        self.head = nn.Linear(hidden[-1], tokens)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 - given to every model of texts
        """Return logits, `(B, T, V)`."""
        words_BET = self.words(tokens).transpose(1, 2)
        (context,) = self.context.kernel_size
        seen_BHT = self.context(functional.pad(words_BET, (context - 1, 0)))  # nothing stands before a text
        found: Tensor = self.head(functional.relu(self.layers(seen_BHT.transpose(1, 2))))
        return found
