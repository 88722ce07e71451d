"""What a text's tokens are: its bytes, or those of a tokenizer in Hugging Face's form, of which all is public.

A tokenizer is a file that each party has a copy of. The scenario says its hash and how many tokens it knows, so both
are in the hash by which silos know the scenario. No file of another hash is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field, model_validator

from fedmodel.errors import ConfigError
from fedmodel.kinds.section import Hash, Section
from fedmodel.kinds.shape import ArrayShape, DataShape

TOKENS: Final = 257
"""How many tokens there are in text that is read byte by byte: one for each byte, and one where it has ended."""
_MOST_TOKENS: Final = 2**24 - 1  # float32, in which records are kept, has every whole number up to one more
_TOKENS: Final = ("tokens", "input_ids")
_MASKS: Final = ("mask", "attention_mask")
Length = Annotated[int, Field(ge=1, le=65_536)]


class TokenizerConfig(Section):
    """A `tokenizer.json` of Hugging Face's `tokenizers` (`fedmodel.data.tokenizer`).

    Attributes:
        sha256: Of the file's bytes.
        vocabulary: How many tokens a model is made for: each is a whole number from 0 up to this.
        file: Where a simulation's lies; a relative path begins at the data's folder. A deployed silo's own file says
            where its copy lies, and never looks at this.
        padding: The token that stands where a text has ended; the mask says where.
        special: Whether the tokens that the file puts around a text are put there.
    """

    sha256: Hash
    vocabulary: int = Field(ge=2, le=_MOST_TOKENS)
    file: str = Field(default="tokenizer.json", min_length=1)
    padding: int = Field(default=0, ge=0)
    special: bool = True

    @model_validator(mode="after")
    def _padding_is_a_token(self) -> TokenizerConfig:
        if self.padding >= self.vocabulary:
            raise ValueError(f"padding = {self.padding} is no token under vocabulary = {self.vocabulary}")
        return self


def tokens_of(tokenizer: TokenizerConfig | None) -> int:
    """Return how many tokens there are."""
    return TOKENS if tokenizer is None else tokenizer.vocabulary


def text_inputs(length: int, tokenizer: TokenizerConfig | None) -> dict[str, ArrayShape]:
    """Return the arrays that a text becomes: its tokens, and which of them stand."""
    return {"tokens": ArrayShape((length,), tokens_of(tokenizer)), "mask": ArrayShape((length,), 2)}


def text_arrays(shape: DataShape) -> tuple[str, str | None]:
    """Return the names of a record's tokens and of their mask.

    Raises:
        ConfigError: When records are no texts.
    """
    inputs = shape.inputs or {}
    tokens = next((name for name in _TOKENS if name in inputs), None)
    mask = next((name for name in _MASKS if name in inputs), None)
    others = [name for name in inputs if name not in (tokens, mask)]
    if tokens is None or inputs[tokens].below is None or len(inputs[tokens].size) != 1 or others:
        found = f"arrays {', '.join(inputs)}" if inputs else f"one array of shape {shape.features}"
        raise ConfigError(
            'model.use = "hf:..." takes texts, arrays "tokens" and "mask" (or "input_ids" and "attention_mask"), and'
            f' these records are {found}; take data.source = "json-lines", or a data set of your own of such arrays'
        )
    return tokens, mask


def check_lengths(lengths: Sequence[int], shape: DataShape) -> None:
    """Refuse lengths of rows for records that are no texts, say not where they end, or are no longer.

    Raises:
        ConfigError: What they are.
    """
    tokens, mask = text_arrays(shape)
    (whole,) = (shape.inputs or {})[tokens].size
    if lengths and mask is None:
        raise ConfigError("model.lengths needs records with a mask, which says where a text ends; leave it out")
    if lengths and lengths[-1] >= whole:
        raise ConfigError(
            f"model.lengths has {lengths[-1]}, and rows of {whole} tokens, as records have, are there anyway; say"
            " shorter ones alone"
        )
