"""Text as whole numbers: a token for each byte of its UTF-8, as many as are declared.

What a text becomes is a function of that text and of the declared length alone. There is no vocabulary to fit, so
nothing is learnt of anybody's records before a run: that would be a release that nobody paid for.

| Token    | Stands for                                     |
|----------|------------------------------------------------|
| 0        | nothing: the text has ended                    |
| 1 to 256 | a byte, and one                                |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.kinds.columns import TOKENS
from fedmodel.kinds.shape import IGNORED

PADDING: Final = 0


def encoded(texts: Sequence[str | None], length: int) -> NDArray[np.int64]:
    """Return the tokens of texts, shape `(N, length)`: their first bytes, then padding; of None padding alone.

    >>> encoded(["ab", "", "é!"], 3).tolist()
    [[98, 99, 0], [0, 0, 0], [196, 170, 34]]
    """
    token_NT = np.full((len(texts), length), PADDING, dtype=np.int64)
    for place, text in enumerate(texts):
        found = np.frombuffer((text or "").encode()[:length], dtype=np.uint8)
        token_NT[place, : len(found)] = found.astype(np.int64) + 1
    return token_NT


def mask_of(token_NT: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return 1 where a token stands, 0 where the text has ended.

    >>> mask_of(encoded(["ab"], 3)).tolist()
    [[1, 1, 0]]
    """
    mask_NT: NDArray[np.int64] = (token_NT != PADDING).astype(np.int64)
    return mask_NT


def next_tokens(token_NT: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at each position the token that comes next, and `IGNORED` where the text has none.

    >>> next_tokens(encoded(["ab", "abcd"], 3)).tolist()
    [[99, -100, -100], [99, 100, -100]]
    """
    ahead_NT = np.full_like(token_NT, IGNORED)
    ahead_NT[:, :-1] = np.where(token_NT[:, 1:] == PADDING, IGNORED, token_NT[:, 1:])
    return ahead_NT


def decoded(token_T: NDArray[np.int64]) -> str:
    """Return the text of tokens, its last letter left out where it was cut within.

    >>> decoded(encoded(["né"], 3)[0]), decoded(encoded(["né"], 2)[0])
    ('né', 'n')
    """
    if token_T.min(initial=PADDING) < PADDING or token_T.max(initial=PADDING) >= TOKENS:
        raise ValueError(f"a token is none of 0 to {TOKENS - 1}")
    return bytes((token_T[token_T != PADDING] - 1).astype(np.uint8)).decode(errors="ignore")
