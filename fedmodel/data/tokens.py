"""Text as whole numbers: a token for each byte of its UTF-8, or those of a tokenizer, as many as are declared.

What a text becomes is a function of that text and of what is declared alone. Nothing is fitted: a vocabulary that was
learnt of anybody's records before a run would be a release that nobody paid for.

Records are kept as codes, each one number more than the token, so that 0 is nothing: the text has ended. What a model
is given is made of these (`inputs_of`):

| Code     | Bytes: token                             | A tokenizer: token               |
|----------|------------------------------------------|----------------------------------|
| 0        | 0, and the mask is 0                     | `padding`, and the mask is 0     |
| k > 0    | k itself, which stands for the byte k - 1 | k - 1, as the tokenizer calls it |
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from fedmodel.data.tokenizer import tokenizer_of
from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import IGNORED
from fedmodel.kinds.tokens import TOKENS, TokenizerConfig

NOTHING: Final = 0


def coded(
    texts: Sequence[str | None], length: int, tokenizer: TokenizerConfig | None = None, file: Path | None = None
) -> NDArray[np.int64]:
    """Return the codes of texts, shape `(N, length)`: of their first tokens, then nothing; of None nothing at all.

    Args:
        texts: Sensitive.
        length: How many tokens are read, those that a tokenizer puts around a text among them.
        tokenizer: Which one; None for bytes.
        file: Where its file lies.

    Raises:
        ConfigError: When the tokenizer is not there, or is another.

    >>> coded(["ab", "", "é!"], 3).tolist()
    [[98, 99, 0], [0, 0, 0], [196, 170, 34]]
    """
    if tokenizer is None:
        return _in_rows([(text or "").encode()[:length] for text in texts], length)
    found = tokenizer_of(tokenizer, _file(file), length)
    return _in_rows([[] if text is None else found.ids(text) for text in texts], length)


def coded_words(
    texts: Sequence[Sequence[str]], length: int, tokenizer: TokenizerConfig | None = None, file: Path | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the codes of texts whose words are given, and at the first token of each word which it is; -1 elsewhere.

    Without a tokenizer the words stand one space apart, and a word without a letter has no token.

    >>> codes_NT, word_NT = coded_words([["ab", "c"]], 5)
    >>> codes_NT.tolist(), word_NT.tolist()
    ([[98, 99, 33, 100, 0]], [[0, -1, -1, 1, -1]])
    """
    word_NT = np.full((len(texts), length), -1, dtype=np.int64)
    found = None if tokenizer is None else tokenizer_of(tokenizer, _file(file), length)
    rows: list[Sequence[int]] = []
    for place, words in enumerate(texts):
        ids, begins = _bytes_of_words(words, length) if found is None else found.ids_of_words(words)
        rows.append(ids)
        for at, word in begins.items():
            word_NT[place, at] = word
    return _in_rows(rows, length), word_NT


def inputs_of(code_NT: NDArray[np.int64], tokenizer: TokenizerConfig | None) -> dict[str, NDArray[np.int64]]:
    """Return what a model is given of codes: tokens, and 1 where one stands and 0 where the text has ended.

    >>> {name: one.tolist() for name, one in inputs_of(coded(["ab"], 3), None).items()}
    {'tokens': [[98, 99, 0]], 'mask': [[1, 1, 0]]}
    """
    mask_NT: NDArray[np.int64] = (code_NT != NOTHING).astype(np.int64)
    token_NT = code_NT if tokenizer is None else np.where(mask_NT == 1, code_NT - 1, tokenizer.padding)
    return {"tokens": token_NT, "mask": mask_NT}


def next_tokens(token_NT: NDArray[np.int64], mask_NT: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return at each position the token that comes next, and `IGNORED` where the text has none.

    >>> next_tokens(**{f"{name[:-1] if name == 'tokens' else name}_NT": one
    ...                for name, one in inputs_of(coded(["ab", "abcd"], 3), None).items()}).tolist()
    [[99, -100, -100], [99, 100, -100]]
    """
    ahead_NT = np.full_like(token_NT, IGNORED)
    ahead_NT[:, :-1] = np.where(mask_NT[:, 1:] == 1, token_NT[:, 1:], IGNORED)
    return ahead_NT


def decoded(token_T: NDArray[np.int64]) -> str:
    """Return the text of tokens that stand for bytes, its last letter left out where it was cut within.

    >>> decoded(coded(["né"], 3)[0]), decoded(coded(["né"], 2)[0])
    ('né', 'n')
    """
    if token_T.min(initial=NOTHING) < NOTHING or token_T.max(initial=NOTHING) >= TOKENS:
        raise ValueError(f"a token is none of 0 to {TOKENS - 1}")
    return bytes((token_T[token_T != NOTHING] - 1).astype(np.uint8)).decode(errors="ignore")


def _in_rows(ids: Sequence[Sequence[int] | bytes], length: int) -> NDArray[np.int64]:
    """Return each text's tokens as a row of codes."""
    code_NT = np.full((len(ids), length), NOTHING, dtype=np.int64)
    for place, one in enumerate(ids):
        found = np.frombuffer(one, dtype=np.uint8) if isinstance(one, bytes) else np.array(one, dtype=np.int64)
        code_NT[place, : len(found)] = found.astype(np.int64) + 1
    return code_NT


def _bytes_of_words(words: Sequence[str], length: int) -> tuple[Sequence[int], dict[int, int]]:
    """Return the bytes of words, and at which of them each begins."""
    begins, at = dict[int, int](), 0
    for word, one in enumerate(words):
        size = len(one.encode())
        if size and at < length:
            begins[at] = word
        at += size + 1
    return " ".join(words).encode()[:length], begins


def _file(file: Path | None) -> Path:
    """Return where a tokenizer's file lies, or say that nobody does."""
    if file is None:
        raise ConfigError(
            "a tokenizer is declared, and nothing says where its file lies here; a silo says tokenizer = PATH under"
            " [tables.NAME] of silo.toml, and so does the server in server.toml"
        )
    return file
