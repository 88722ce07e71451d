"""A local tokenizer of Hugging Face's form: those very bytes or nothing, one text one record, no record that fails."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from fedmodel.data.tokenizer import tokenizer_of
from fedmodel.data.tokens import coded, coded_words, inputs_of, next_tokens
from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import IGNORED
from fedmodel.kinds.tokens import TokenizerConfig

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "pain", "in", "the", "left", "arm", "##s"]
UNKNOWN = {"unk_token": "[UNK]"}


def wordpiece() -> tokenizers.Tokenizer:
    """A tokenizer as BERT's is, of ten tokens."""
    found = tokenizers.Tokenizer(models.WordPiece({word: at for at, word in enumerate(WORDS)}, **UNKNOWN))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return found


def laid(path: Path, found: tokenizers.Tokenizer | None = None, **said: Any) -> TokenizerConfig:
    """Write a tokenizer's file, with some keys changed, and return what a scenario says of it."""
    document = json.loads((found or wordpiece()).to_str())
    document["model"] |= said.pop("model", {})
    if document["model"]["type"] is None:
        del document["model"]["type"]
    data = json.dumps(document).encode()
    path.write_bytes(data)
    return TokenizerConfig.model_validate({"sha256": hashlib.sha256(data).hexdigest(), "vocabulary": 10, **said})


def tokens(config: TokenizerConfig, file: Path, texts: list[str], length: int = 6) -> dict[str, list[list[int]]]:
    found = inputs_of(coded(texts, length, config, file), config)
    return {name: one.tolist() for name, one in found.items()}


def test_a_text_is_cut_and_padded_to_the_declared_length(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    config = laid(file, padding=9)
    found = tokens(config, file, ["pain in", "pain in the left arms", "", "fever"])
    assert found["tokens"] == [[2, 4, 5, 3, 9, 9], [2, 4, 5, 6, 7, 3], [2, 3, 9, 9, 9, 9], [2, 1, 3, 9, 9, 9]]
    assert found["mask"] == [[1, 1, 1, 1, 0, 0], [1] * 6, [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    bare = laid(file, special=False)
    assert tokens(bare, file, ["pain", ""], 3) == {"tokens": [[4, 0, 0], [0] * 3], "mask": [[1, 0, 0], [0] * 3]}
    absent = inputs_of(coded([None], 3, bare, file), bare)
    assert absent["mask"].tolist() == [[0, 0, 0]]


def test_what_the_file_says_of_cutting_and_padding_is_set_aside(tmp_path: Path) -> None:
    """Else one record could become several, or be as long as the longest of others."""
    found = wordpiece()
    found.enable_truncation(4, stride=1)
    found.enable_padding(length=12, pad_id=8)
    file = tmp_path / "tokenizer.json"
    config = laid(file, found)
    both = ["pain in the left arms", "pain"]
    plain = tmp_path / "plain.json"
    assert tokens(config, file, both) == tokens(laid(plain), plain, both)
    assert tokens(config, file, both[:1])["tokens"] == tokens(config, file, both)["tokens"][:1]


def test_a_token_with_the_number_nought_stands_and_is_no_padding(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    config = laid(file, tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1}, [])))
    found = inputs_of(coded(["aba"], 5, config, file), config)
    assert found["tokens"].tolist() == [[0, 1, 0, 0, 0]]
    assert found["mask"].tolist() == [[1, 1, 1, 0, 0]]
    assert next_tokens(found["tokens"], found["mask"]).tolist() == [[1, 0, IGNORED, IGNORED, IGNORED]]


def test_each_word_is_known_by_its_first_token(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    config = laid(file)
    codes_NT, word_NT = coded_words([["arms", "left"], ["pain"] * 9], 5, config, file)
    assert inputs_of(codes_NT, config)["tokens"].tolist() == [[2, 8, 9, 7, 3], [2, 4, 4, 4, 3]]
    assert word_NT.tolist() == [[-1, 0, -1, 1, -1], [-1, 0, 1, 2, -1]]


def test_a_byte_that_differs_is_refused_and_no_file_is_taken_for_another(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    config = laid(file)
    whole, before = file.read_bytes(), coded(["pain"], 4, config, file)
    file.write_bytes(whole + b" ")
    with pytest.raises(
        ConfigError, match=r"tokenizer\.json: has sha256 .*, and the scenario says .*every byte"
    ) as said:
        coded(["pain"], 4, config, file)
    assert "\n" not in str(said.value)
    file.write_bytes(whole)
    assert np.array_equal(coded(["pain"], 4, config, file), before)
    file.unlink()
    with pytest.raises(ConfigError, match="the tokenizer cannot be read: No such file"):
        coded(["pain"], 4, config, file)
    file.mkdir()
    with pytest.raises(ConfigError, match="the tokenizer cannot be read: Is a directory"):
        coded(["pain"], 4, config, file)
    with pytest.raises(ConfigError, match=r"nothing says where its file lies here; a silo says tokenizer = PATH"):
        coded(["pain"], 4, config, None)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    config = laid(file)
    os.truncate(file, 200_000_001)
    with pytest.raises(ConfigError, match="is more than 200000000 bytes, which no tokenizer is"):
        coded(["pain"], 4, config, file)


@pytest.mark.parametrize(
    ("found", "model", "why"),
    [
        (None, {"unk_token": "[NONE]"}, r"needs a token of its own for what it does not know \(unk_token\)"),
        (
            tokenizers.Tokenizer(models.WordLevel({"a": 0}, **UNKNOWN)),
            {},
            r"needs a token of its own for what it does not know \(unk_token\)",
        ),
        (
            tokenizers.Tokenizer(models.Unigram([("a", -1.0)])),
            {},
            r"needs a token of its own for what it does not know \(unk_id\)",
        ),
        (
            tokenizers.Tokenizer(models.Unigram([("a", -1.0)])),
            {"byte_fallback": True},
            r"needs a token of its own for what it does not know \(unk_id\)",
        ),
        (tokenizers.Tokenizer(models.Unigram([("a", -1.0)], 0)), {"type": None}, "does not say the type of its model"),
        (tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1}, [])), {"dropout": 0.1}, "its model has dropout"),
        (tokenizers.Tokenizer(models.BPE({"a": 0}, [], **UNKNOWN)), {}, r"\(unk_token\)"),
        (tokenizers.Tokenizer(models.BPE({"a": 0, "b": 10}, [])), {}, "has token 10, and tokenizer.vocabulary = 10"),
    ],
)
def test_a_file_by_which_a_record_could_fail_or_change_is_refused_before_any_is_read(
    found: tokenizers.Tokenizer | None, model: dict[str, Any], why: str, tmp_path: Path
) -> None:
    file = tmp_path / "tokenizer.json"
    config = laid(file, found, model=model)
    with pytest.raises(ConfigError, match=why) as said:
        tokenizer_of(config, file, 8)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("found", [tokenizers.Tokenizer(models.BPE({"a": 0, "b": 1}, [])), None])
def test_no_text_makes_a_tokenizer_that_is_taken_fail(found: tokenizers.Tokenizer | None, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    config = laid(file, found)
    texts = ["", " ", "\0", "é" * 500, "\U0001f600", "a" * 5_000, "[CLS] [SEP]", "\u202e\u0301"]
    assert coded(texts, 5, config, file).shape == (len(texts), 5)


@pytest.mark.parametrize("data", [b"{}", b"[1]", b"not json", b"", b'{"model": {"type": "none"}}'])
def test_what_is_no_tokenizer_is_named(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(data)
    config = TokenizerConfig(sha256=hashlib.sha256(data).hexdigest(), vocabulary=10)
    with pytest.raises(ConfigError, match=r"is no tokenizer\.json that is read") as said:
        coded(["a"], 3, config, file)
    assert "\n" not in str(said.value)


def test_a_length_without_a_place_for_the_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    config = laid(file)
    with pytest.raises(ConfigError, match="length = 2 leaves no place beside 2 tokens"):
        coded(["a"], 2, config, file)
    assert tokens(config, file, ["pain in"], 3)["tokens"] == [[2, 4, 3]]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"padding": 10}, "padding = 10 is no token under vocabulary = 10"),
        ({"vocabulary": 1}, "greater than or equal to 2"),
        ({"vocabulary": 2**24}, "less than or equal to 16777215"),
        ({"sha256": "A" * 64}, "should match pattern"),
        ({"url": "https://example.org"}, "Extra inputs"),
    ],
)
def test_what_is_declared_of_a_tokenizer_is_held_to_its_rules(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        TokenizerConfig.model_validate({"sha256": "a" * 64, "vocabulary": 10, **said})
