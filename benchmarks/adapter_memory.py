"""What fine-tuning a base of 135 million parameters takes: memory of a step on a lot of 256, and bytes of a round.

    python benchmarks/adapter_memory.py [--lot 256] [--rows 8] [--length 32]

The base is of the shape of SmolLM-135M (30 layers of width 576, 49,152 tokens), with random weights: neither memory
nor bytes hang on what is in them. A step is this project's, the lot's sum added up from physical batches of so many
rows; memory is the most that the process ever held, with Python, torch and the base.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Final

import numpy as np
import torch
from torch import nn

from fedmodel.kinds.adapted import Adapted
from fedmodel.kinds.adapters import IN_NAMES, Lora, with_lora
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import KINDS
from fedmodel.learning.tasks.next_token import NextToken
from fedmodel.privacy import grid
from fedmodel.privacy.noise import OsNoise
from fedmodel.privacy.release import release

_TOKENS: Final = 49_152
_CLIP, _NOISE = 1.0, 1.0
_FLOAT: Final = 4  # bytes


def base() -> nn.Module:
    """Return the base, frozen, with adapters of rank 8 on query and value."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_TOKENS, hidden_size=576, intermediate_size=1_536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2_048, tie_word_embeddings=True,
    )  # fmt: skip
    module = with_lora(LlamaForCausalLM(config), Lora(("q_proj", "v_proj"), 8, 16.0, 0.0))
    for name, one in module.named_parameters():
        one.requires_grad_(IN_NAMES in name)
    return Adapted(module, None, "tokens", "mask", _TOKENS, causal=True)


def most_held() -> float:
    """Return the most memory that this process held so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024 / 1e9


def main() -> None:
    """Take one step, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lot", type=int, default=256)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=32)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    module = base()
    losses = NextToken.losses["cross-entropy"]
    unit = grid.fine(_NOISE * _CLIP)
    gradients = KINDS["book-keeping"](module, losses, max_grad_norm=_CLIP, unit=unit, rows=asked.rows)
    source, noise = OsNoise(), _NOISE * _CLIP
    sgd = DpSgd(
        gradients, torch.optim.Adam(gradients.parameters, lr=1e-3),
        lambda sums: release(sums, source, noise, asked.lot), noise_multiplier=_NOISE,
    )  # fmt: skip
    token_NT = torch.randint(_TOKENS, (asked.lot, asked.length))
    x_N = {"tokens": token_NT, "mask": torch.ones_like(token_NT)}
    before, began = most_held(), time.process_time()
    sgd.step(x_N, token_NT.roll(-1, dims=1), np.arange(asked.lot))
    trained = sum(one.numel() for one in gradients.parameters)
    whole = sum(one.numel() for one in module.parameters()) - trained
    found = {
        "lot": asked.lot, "rows": asked.rows, "length": asked.length, "GB with the base": round(before, 2),
        "GB at most": round(most_held(), 2), "CPU seconds": round(time.process_time() - began),
        "base": whole, "trained": trained, "bytes of an update": trained * _FLOAT, "of the base": whole * _FLOAT,
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
