"""A tokenizer of Hugging Face's form from a file here: `tokenizer.json`, data that the library `tokenizers` reads.

Nothing is downloaded, and no code or pickle is in such a file. Its bytes are held to the hash that the scenario says
before anything of them is read, and what is read are those very bytes.

Guarantee: a text's tokens are a function of that text, of those bytes and of the declared length. One text is one
record: it is cut to the length with the tokens that the file puts around it, and never goes on in another. What the
file itself says of cutting and padding is set aside. A file is refused whose tokens could be others the next time
(dropout of BPE), that has tokens which the declared vocabulary has not, or that would fail on a text because no token
stands for what it does not know: so no record of a silo makes it fail.

Does NOT know what a vocabulary was fitted to: whoever proposes one that was fitted to private records publishes these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedmodel.errors import ConfigError, DataError
from fedmodel.kinds.tokens import TokenizerConfig

if TYPE_CHECKING:
    import tokenizers

_MOST_BYTES: Final = 200_000_000


class Tokenizer:
    """A tokenizer of one length.

    Args:
        found: As it was read.
        config: What is declared of it.
        length: How many tokens a text has at most.
    """

    def __init__(self, found: tokenizers.Tokenizer, config: TokenizerConfig, length: int) -> None:
        self._found, self._config = found, config
        found.no_padding()
        found.no_truncation()
        around = found.num_special_tokens_to_add(False) if config.special else 0
        if length <= around:
            raise ConfigError(f"length = {length} leaves no place beside {around} tokens that are put around a text")
        found.enable_truncation(length)

    def ids(self, text: str) -> list[int]:
        """Return a text's tokens. Sensitive."""
        return self._encoded(text).ids

    def ids_of_words(self, words: Sequence[str]) -> tuple[list[int], dict[int, int]]:
        """Return the tokens of a text whose words are given, and at which of them each word begins. Sensitive."""
        found, first = self._encoded(list(words)), dict[int, int]()
        for at, word in enumerate(found.word_ids):
            if word is not None:
                first.setdefault(word, at)
        return found.ids, {at: word for word, at in first.items()}

    def _encoded(self, text: str | list[str]) -> tokenizers.Encoding:
        """Return what the library makes of a text; its own words could quote it."""
        try:
            found = self._found.encode(
                text, is_pretokenized=isinstance(text, list), add_special_tokens=self._config.special
            )
        except Exception as error:
            raise DataError(f"the tokenizer fails on a text ({type(error).__name__}); take another") from None
        if max(found.ids, default=0) >= self._config.vocabulary:
            raise DataError("the tokenizer puts a token around a text that is none of its vocabulary; take another")
        return found


def tokenizer_of(config: TokenizerConfig, file: Path, length: int) -> Tokenizer:
    """Return a tokenizer, read once for as long as its file is the same.

    Raises:
        ConfigError: When the package is missing; the file is not there, is another, or is none that is read; or the
            length has no place for a token.
    """
    return _read(config, file, _stamp(file), length)


def check_tokenizer(config: TokenizerConfig, file: Path, length: int) -> None:
    """Refuse a tokenizer's file that is not there, or of which a byte is another.

    Guarantee: the answer hangs on that file and on what is declared, and on no record: it may be told to a server.

    Raises:
        ConfigError: As `tokenizer_of` does.
    """
    tokenizer_of(config, file, length)


@lru_cache(maxsize=8)
def _read(config: TokenizerConfig, file: Path, _: tuple[int, ...], length: int) -> Tokenizer:
    """Read a file that is as it is said to be."""
    try:
        import tokenizers
    except ImportError:
        raise ConfigError("a tokenizer needs a package that is not installed: pip install 'fedmodel[llm]'") from None
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: the tokenizer cannot be read: {error.strerror}") from None
    found = hashlib.sha256(data).hexdigest()
    if found != config.sha256:
        raise ConfigError(
            f"{file}: has sha256 {found[:16]}..., and the scenario says {config.sha256[:16]}...; lay that very"
            " file there, every byte of it"
        )
    try:
        said = json.loads(data)
        read = tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # the library raises plain ones
        raise ConfigError(f"{file}: is no tokenizer.json that is read ({type(error).__name__})") from None
    _check(file, said, read, config)
    return Tokenizer(read, config, length)


def _check(file: Path, said: dict[str, Any], read: tokenizers.Tokenizer, config: TokenizerConfig) -> None:
    """Refuse a tokenizer whose tokens are not a function of the text, or not under the declared vocabulary."""
    model = said["model"]
    vocabulary = read.get_vocab(with_added_tokens=True)
    most = max(vocabulary.values(), default=-1)
    if most >= config.vocabulary:
        raise ConfigError(
            f"{file}: has token {most}, and tokenizer.vocabulary = {config.vocabulary} is declared; declare"
            f" {most + 1} at least"
        )
    if model.get("dropout"):
        raise ConfigError(f"{file}: its model has dropout, so that a text has other tokens each time; set it to null")
    if model.get("type") is None:
        raise ConfigError(f"{file}: does not say the type of its model; write it anew with its library")
    unknown = model.get("unk_token")
    needs_one = model.get("type") in ("WordLevel", "WordPiece")
    if (needs_one or unknown is not None) and unknown not in read.get_vocab(with_added_tokens=False):
        raise ConfigError(f"{file}: needs a token of its own for what it does not know (unk_token); name one in it")
    by_bytes = model.get("byte_fallback") and all(f"<0x{byte:02X}>" in vocabulary for byte in range(256))
    if model.get("type") == "Unigram" and model.get("unk_id") is None and not by_bytes:
        raise ConfigError(f"{file}: needs a token of its own for what it does not know (unk_id); name one in it")


def _stamp(file: Path) -> tuple[int, ...]:
    """Return what of a file changes when it does."""
    try:
        found = file.stat()
    except OSError as error:
        raise ConfigError(f"{file}: the tokenizer cannot be read: {error.strerror}") from None
    if found.st_size > _MOST_BYTES:
        raise ConfigError(f"{file}: is more than {_MOST_BYTES} bytes, which no tokenizer is")
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
