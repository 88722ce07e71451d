"""Bases small enough to be made by a test: two layers of width 32, with random weights, in a folder of their own."""

from __future__ import annotations

import json
import shutil
import tomllib
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import tomli_w

from fedmodel.config.kinds import ModelConfig
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.kinds.shape import NEXT, ArrayShape, DataShape
from tests.conftest import TINY

OF_PEFT = "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
"""What peft asks transformers."""
LENGTH = 12
TOKENS = 257
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "fine", "poor", "day", "night")
INPUTS = {"tokens": ArrayShape((LENGTH,), TOKENS), "mask": ArrayShape((LENGTH,), 2)}
CLASSES = DataShape((), 3, inputs=INPUTS, labels=("a", "b", "c"))
LABELS = DataShape(
    (), 5, inputs=INPUTS, target=ArrayShape((LENGTH,), 5, ignores=True), labels=tuple("abcde"), task="sequence-labels"
)
NEXT_TOKEN = DataShape((), TOKENS, inputs=INPUTS, target=ArrayShape((LENGTH,), TOKENS, ignores=True), task=NEXT)


def make_base(folder: Path, kind: str) -> Path:
    """Copy a base into a folder: "encoder" and "masked" are BERTs, without and with a head, "decoder" is a GPT-2."""
    shutil.copytree(_made(kind), folder)
    return folder


@lru_cache(maxsize=4)
def _made(kind: str) -> Path:
    """Make a base once a process; its weights are the same each time."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertForMaskedLM, BertModel, GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = Path(mkdtemp(prefix=f"base-{kind}-"))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        if kind == "decoder":
            module: Any = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=TOKENS, n_embd=32, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=1
                )
            )
        else:
            config = BertConfig(
                vocab_size=TOKENS,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=48,
                max_position_embeddings=32,
            )
            module = BertModel(config) if kind == "encoder" else BertForMaskedLM(config)
    module.save_pretrained(folder)
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    if kind == "masked":
        tokenizer.add_special_tokens(["[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def config_of(folder: Path, task: str, **said: Any) -> HfConfig:
    """Return a section `model` on a base, whose hash is read."""
    from pydantic import TypeAdapter

    found = TypeAdapter(ModelConfig).validate_python({"use": f"hf:{folder}", "task": task, **said})
    assert isinstance(found, HfConfig)
    return found.settled()


def scenario_on(folder: Path, kind: str = "encoder", **said: Any) -> Path:
    """Write a scenario of three silos on a base beside it, with texts in JSON lines, and return its file."""
    make_base(folder / "base", kind)
    (folder / "texts").mkdir()
    lines = [{"text": f"{word} {number}", "label": word} for number in range(24) for word in ("good", "bad")]
    (folder / "texts" / "all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    document = tomllib.loads(TINY)
    document["rounds"] = 1
    document["model"] = {
        "use": "hf:base", "task": "sequence-classification", "adapt": "lora", "targets": ["query"], "rank": 2,
    }  # fmt: skip
    document["data"] = {
        "source": "json-lines", "name": "notes", "folder": str(folder / "texts"), "labels": ["good", "bad"],
        "length": 8, "held_out": 0.25,
    }  # fmt: skip
    document["privacy"] |= {"expected_batch_size": 4, "sample_rate": 0.5, "delta": 0.01}
    document["training"] |= {"local_steps": 1, "max_physical_batch": 4}
    for section, keys in said.items():
        document[section] = {key: one for key, one in {**document[section], **keys}.items() if one is not None}
    path = folder / "based.toml"
    path.write_text(tomli_w.dumps(document))
    return path
