"""What fine-tuning a base of 135 million parameters takes: memory of a step on a lot of 256, and bytes of a round.

    python benchmarks/adapter_memory.py [--lot 256] [--rows 8] [--length 32] [--held float32|bf16|nf4] [--again]

The base is of the shape of SmolLM-135M (30 layers of width 576, 49,152 tokens), with random weights: neither memory
nor bytes hang on what is in them. It is held in one of the precisions of `model.base_precision`; with `--again` its
blocks are computed again in the backward pass, as `model.gradient_checkpointing` has it.

A step is this project's, the lot's sum added up from physical batches of so many rows. Memory is the most that the
process held since the base was ready, with Python, torch, the base and what it is put back to after each batch, as
Linux counts it; and the most that torch held in the pass of one physical batch, over what it held before.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn

from fedmodel.kinds.adapted import Adapted
from fedmodel.kinds.adapters import IN_NAMES, Lora, with_lora
from fedmodel.kinds.held import Matrix, hold
from fedmodel.kinds.recomputed import recompute
from fedmodel.learning.dp_sgd import DpSgd
from fedmodel.learning.gradients import KINDS
from fedmodel.learning.memory import held_at_most
from fedmodel.learning.tasks.next_token import NextToken
from fedmodel.privacy import grid
from fedmodel.privacy.noise import OsNoise
from fedmodel.privacy.release import release

_TOKENS: Final = 49_152
_CLIP, _NOISE = 1.0, 1.0
_FLOAT: Final = 4  # bytes


def base(held: str, *, again: bool) -> nn.Module:
    """Return the base, frozen and held in a precision, with adapters of rank 8 on query and value."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_TOKENS, hidden_size=576, intermediate_size=1_536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=2_048, tie_word_embeddings=True,
    )  # fmt: skip
    module = with_lora(LlamaForCausalLM(config), Lora(("q_proj", "v_proj"), 8, 16.0, 0.0))
    for name, one in module.named_parameters():
        one.requires_grad_(IN_NAMES in name)
    if held != "float32":
        frozen = [one for one in module.parameters() if one.dim() == 2 and not one.requires_grad]
        hold(module, {one.data_ptr(): Matrix(one.data) for one in frozen}, held)
    if again:
        recompute(module)
    return Adapted(module, None, "tokens", "mask", _TOKENS, causal=True)


def most_held() -> float:
    """Return the most memory that this process held since that was forgotten, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (told,) = [line for line in lines if line.startswith("VmHWM")]
    return int(told.split()[1]) * 1_024 / 1e9


def forget_most_held() -> None:
    """Begin anew with what the process holds now: building a base takes more than the base."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was let go is the system's again
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Take one step, and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lot", type=int, default=256)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--held", choices=("float32", "bf16", "nf4"), default="float32")
    parser.add_argument("--again", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    module = base(asked.held, again=asked.again)
    forget_most_held()
    before = most_held()
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
    rows = np.arange(asked.rows)
    gradients.of(x_N, token_NT.roll(-1, dims=1), rows[:0])  # and what the model is put back to is there
    of_a_pass = held_at_most(torch.device("cpu"), lambda: gradients.of(x_N, token_NT.roll(-1, dims=1), rows))
    forget_most_held()
    began = time.process_time()
    sgd.step(x_N, token_NT.roll(-1, dims=1), np.arange(asked.lot))
    trained = sum(one.numel() for one in gradients.parameters)
    frozen = [*(one for one in module.parameters() if not one.requires_grad), *module.buffers()]
    found = {
        "lot": asked.lot, "rows": asked.rows, "length": asked.length, "held": asked.held, "again": asked.again,
        "GB with the base": round(before, 2), "GB at most": round(most_held(), 2),
        "MB of a pass": round(of_a_pass / 1e6),
        "CPU seconds": round(time.process_time() - began),
        "trained": trained, "bytes of an update": trained * _FLOAT,
        "bytes of the base": sum(one.numel() * one.element_size() for one in frozen),
    }  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
