"""The next token from a few before it: a neural n-gram model (Bengio et al. 2003, without direct connections)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from fedmodel.errors import ConfigError
from fedmodel.kinds.model import Model
from fedmodel.kinds.shape import NEXT, DataShape

if TYPE_CHECKING:
    from torch import nn

    from fedmodel.kinds.source import Source

Widths = Annotated[
    tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(strict=False, min_length=1, max_length=100)
]


class NgramConfig(Model):
    """Embeddings of the last tokens, hidden layers, and a logit of each token that may come next.

    It has few parameters and no step that waits for the one before, so it learns much of short contexts for each second
    of a processor. What is further back than the context it never sees.

    Attributes:
        context: How many tokens the next one is foretold from.
        embedding: Width of a token's embedding.
        hidden: Widths of hidden layers.
    """

    kind: Literal["ngram"]
    context: int = Field(default=8, ge=1, le=1_024)
    embedding: int = Field(default=16, ge=1, le=65_536)
    hidden: Widths = (64,)

    def why_not_on(self, data: Source) -> str | None:
        """Return that data are learnt in another way, None where the next token is what is learnt."""
        if data.learnt == NEXT:
            return None
        return (
            f'model.kind = "ngram" foretells the next token, and data.source = "{data.source}" is of task'
            f' "{data.learnt}"; take texts with task = "{NEXT}", or another model'
        )

    def build(self, shape: DataShape) -> nn.Module:
        """Return the network.

        Raises:
            ConfigError: When records are no tokens with a mask, of which the next one is learnt.
        """
        from fedmodel.kinds.contexts import Ngram

        inputs = shape.inputs or {}
        if shape.task != NEXT or set(inputs) != {"tokens", "mask"} or inputs["tokens"].below is None:
            raise ConfigError(
                'model.kind = "ngram" takes arrays "tokens" and "mask" of which the next token is learnt, and these'
                f" records are of task {shape.task!r}, with {', '.join(inputs) or 'one array'}"
            )
        return Ngram(inputs["tokens"].below, self.context, self.embedding, self.hidden)
