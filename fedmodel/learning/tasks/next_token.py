"""The next token of a sequence, at each of its positions.

A target is the sequence moved by one. A model that sees a whole sequence at once needs a mask of its own, or it learns
to copy.
"""

from __future__ import annotations

from typing import Final

from fedmodel.learning.tasks._positions import Positions


class NextToken(Positions):
    """Tokens of one vocabulary."""

    name = "next-token"
    default = ("perplexity", "token-accuracy")


TASK: Final = NextToken
