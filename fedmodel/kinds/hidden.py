"""Tokens that are hidden from a model which is to foretell them, as masked language models learn (Devlin et al. 2018).

A model that attends to both sides sees the token that it is asked for, unless that is hidden: its place then holds the
mask token of the base's tokenizer (arXiv 1810.04805, section 3.1; here always, where that paper leaves one in five as
it is or puts another there). What stands at a place of outputs is of the next token, as of any model of next tokens.

| When                             | Hidden is                                                  | Passes         |
|----------------------------------|------------------------------------------------------------|----------------|
| it trains                        | each token with probability `RATE`, drawn for each record  | 1              |
|                                  | and step from where noise comes from                       |                |
| it is measured before it trains  | every seventh token                                        | 1              |
| it is used, and on held-out      | every seventh token, from each of seven beginnings         | 7, one output  |
| records                          |                                                            | of each token  |

Guarantee: no output at a token that counts is a function of that token. Where a token was not hidden as a model trains,
its outputs are zeros, whatever the model made of it: a constant loss, without a gradient. So a record's gradient is
that of its hidden tokens alone, over the number of all its tokens.

Draws are a record's own and secret, as masks of dropout are, of which `fedmodel.learning.jobs.training` says why that
is enough. The first token of a text is never asked for, nor hidden.

Shapes: B records, T positions, V tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor

from fedmodel.kinds.layers import Dropout

RATE: Final = 0.15
"""Of tokens that are hidden as a model trains, as in Devlin et al. 2018."""
_TURNS: Final = 7  # so that about as many are hidden at once
_MEASURED: Final = 1  # the beginning that is taken before a model trains: the shortest records have such a place

Logits = Callable[[Tensor], Tensor]
"""From tokens, `(B, T)`, to what a model makes of each place, `(B, T, V)`."""


class Hider(Dropout):
    """What decides which tokens are hidden; a kind of dropout, so that it draws where dropout does."""

    def __init__(self) -> None:
        super().__init__(RATE)

    def places(self, token_BT: Tensor, *, trains: bool) -> list[Tensor]:
        """Return which tokens are hidden, `(B, T)` of truths for each pass.

        Args:
            token_BT: The records.
            trains: Whether the model does.

        Raises:
            PrivacyError: When a training pass has no source to draw from.
        """
        if self.training and trains:
            return [(self.kept(token_BT) == 0) & (_place(token_BT) > 0)]
        return list(_in_turn(token_BT))[_MEASURED : _MEASURED + 1] if trains else list(_in_turn(token_BT))


def foretold(logits: Logits, token_BT: Tensor, places: list[Tensor], mask_token: int) -> Tensor:
    """Return outputs for each token's next one, `(B, T, V)`, of passes in which that was hidden; else zeros.

    Args:
        logits: The model, of both sides of a token.
        token_BT: The records.
        places: What is hidden in each pass.
        mask_token: What stands there then.
    """
    found_BTV: Tensor | None = None
    for hidden_BT in places:
        own_BTV = logits(torch.where(hidden_BT, mask_token, token_BT))
        rest_BTV = own_BTV.new_zeros(()) if found_BTV is None else found_BTV
        found_BTV = torch.where(hidden_BT[:, :, None], own_BTV, rest_BTV)
    assert found_BTV is not None  # noqa: S101 - there is one pass at least
    return torch.cat([found_BTV[:, 1:], torch.zeros_like(found_BTV[:, :1])], dim=1)


def in_turn(logits: Logits, token_BT: Tensor, mask_token: int) -> Tensor:
    """Return outputs for each token's next one, of a model that is used."""
    return foretold(logits, token_BT, list(_in_turn(token_BT)), mask_token)


def _in_turn(token_BT: Tensor) -> Iterator[Tensor]:
    """Yield every seventh place, from each beginning."""
    place_BT = _place(token_BT)
    for turn in range(_TURNS):
        yield (place_BT % _TURNS == turn) & (place_BT > 0)


def _place(token_BT: Tensor) -> Tensor:
    """Return each token's place, `(B, T)`."""
    return torch.arange(token_BT.shape[-1], device=token_BT.device).expand(token_BT.shape)
