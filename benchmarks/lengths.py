"""What padding costs real texts, what rows of several lengths bring, and why records are not packed into shared rows.

    python benchmarks/lengths.py --folder FOLDER

FOLDER is what `mail.py` wrote: e-mails, and a base of 22.7 million parameters. Printed are:

1. of each `length`, which share of a row's tokens is padding, how many times fewer tokens packing could leave at most
   (rows without a gap), and how many times fewer `model.lengths` leaves;
2. of records packed into shared rows, with a mask that keeps them apart and positions that begin anew: how many come
   out of the base with other bits than alone in such a row, and what one whose values are infinite does to the others;
3. of steps of adapters on lots of e-mails, CPU seconds, and what part of them steps with `model.lengths` take, turn by
   turn in one run.

Shapes: N texts, T positions, H hidden.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from fedmodel.config import TrainingConfig
from fedmodel.kinds.bases import place, tokenizer_config
from fedmodel.kinds.models.hf import HfConfig
from fedmodel.kinds.pretrained import FEATURES, as_model
from fedmodel.kinds.shape import DataShape
from fedmodel.kinds.tokens import text_inputs
from fedmodel.learning.gradients import ClippedSum, kind
from fedmodel.learning.lengths import of_shape
from fedmodel.learning.models import build_model, training_losses

WHOLE: Final = (32, 64, 128, 256, 512)
_TARGETS: Final = ("5.attention.self.query", "5.attention.self.value")  # as in mail.toml
_ROWS: Final = 8
_PACKED: Final = 64  # tokens of a shared row, at most


def shorter(whole: int) -> tuple[int, ...]:
    """Return the lengths that are measured: few, since a lot has a physical batch that is not full for each of them."""
    return whole // 4, whole // 2


def counts(folder: Path) -> NDArray[np.int64]:
    """Return how many tokens each message that trains has, uncut."""
    tokenizer = Tokenizer.from_file(str(folder / "base" / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return np.array([len(one.ids) for one in tokenizer.encode_batch(texts(folder))])


def texts(folder: Path) -> list[str]:
    """Return the messages that train."""
    lines = (folder / "mail" / "train" / "all.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def padding(count_N: NDArray[np.int64], whole: int, cuts: Sequence[int]) -> tuple[float, float, float]:
    """Return the share of tokens that is padding, and how many times fewer packing leaves at most, and lengths do.

    >>> padding(np.array([4, 8, 100]), 16, (8,))
    (0.4166666666666667, 1.7142857142857142, 1.5)
    """
    kept_N = np.minimum(count_N, whole)
    ends = np.array([*cuts, whole])
    rows_N = ends[np.searchsorted(ends, kept_N)]
    return 1 - float(kept_N.mean()) / whole, whole / float(kept_N.mean()), whole / float(rows_N.mean())


def shape_of(folder: Path, whole: int) -> DataShape:
    """Return what messages look like that are read by the base's own tokenizer."""
    return DataShape(
        (), 2, inputs=text_inputs(whole, tokenizer_config(place(folder / "base"))), labels=("mail", "spam")
    )


def records(folder: Path, whole: int, number: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return some messages as a silo has them, drawn once, and made-up labels."""
    tokenizer = Tokenizer.from_file(str(folder / "base" / "tokenizer.json"))
    tokenizer.enable_truncation(whole)
    tokenizer.enable_padding(length=whole)
    all_texts = texts(folder)
    chosen = np.random.default_rng(0).choice(len(all_texts), number, replace=False)
    read = tokenizer.encode_batch([all_texts[one] for one in chosen])
    token_NT, mask_NT = (torch.tensor([getattr(one, name) for one in read]) for name in ("ids", "attention_mask"))
    return {"tokens": token_NT, "mask": mask_NT}, torch.arange(number) % 2


def pipeline(folder: Path, whole: int, cuts: tuple[int, ...]) -> ClippedSum:
    """Return the clipped sum of adapters on the base."""
    shape = shape_of(folder, whole)
    config = HfConfig(
        kind="hf", use=f"hf:{folder / 'base'}", task="sequence-classification", targets=_TARGETS
    ).settled()
    training = TrainingConfig(loss="cross-entropy", optimizer="sgd", learning_rate=1.0, local_steps=1)
    losses, module = training_losses(training, shape), build_model(config, shape, seed=0)
    found = kind("book-keeping")(module, losses, max_grad_norm=1.0, unit=2.0**-30, rows=_ROWS)
    found.lengths = of_shape(cuts, shape)
    return found


def seconds(folder: Path, whole: int, lot: int, turns: int) -> tuple[float, float]:
    """Return the seconds of a step's sum without lengths, and those with them over it; medians over turns."""
    (x_N, y_N), own = records(folder, whole, 4 * lot), np.random.default_rng(1)
    pipelines = [pipeline(folder, whole, cuts) for cuts in ((), shorter(whole))]
    taken: list[list[float]] = [[], []]
    for gradients in pipelines:
        gradients.of(x_N, y_N, np.arange(_ROWS))  # which warms up
    for _ in range(turns):
        index = own.choice(4 * lot, lot, replace=False)
        for seconds_, gradients in zip(taken, pipelines, strict=True):
            began = time.process_time()
            gradients.of(x_N, y_N, index)
            seconds_.append(time.process_time() - began)
    ratio = statistics.median(short / long for long, short in zip(*taken, strict=True))
    return statistics.median(taken[0]), ratio


def in_shared_rows(folder: Path, number: int, width: int) -> tuple[int, float, bool]:
    """Return, of records at three other places of a row, how many have other bits than at the first.

    The largest difference goes with it, and whether a companion whose values are infinite left the others numbers.
    """
    x_N, _ = records(folder, width, number)
    token_NT = x_N["tokens"]
    module, _ = as_model(place(folder / "base").sha256, FEATURES, 2, shape_of(folder, _PACKED).inputs["tokens"])  # type: ignore[index]
    module = module.eval()
    alone_NTH = _packed(module, [token_NT, *[token_NT.new_zeros(token_NT.shape)] * 3])[:, :width]
    differ, largest = 0, 0.0
    for turn in (1, 2, 3):
        others = [token_NT.roll(step, 0) for step in (1, 2, 3)]
        beside_NTH = _packed(module, [*others[:turn], token_NT, *others[turn:]])[:, width * turn : width * (turn + 1)]
        differ += int((beside_NTH != alone_NTH).flatten(1).any(dim=1).sum())
        largest = max(largest, float((beside_NTH - alone_NTH).abs().max()))
    values = dict(module.named_parameters())["embeddings.word_embeddings.weight"]
    kept, odd = values.data.clone(), int(token_NT.max()) + 1
    values.data[odd] = torch.inf
    spoiled_NTH = _packed(module, [token_NT, torch.full_like(token_NT, odd), *[token_NT] * 2])[:, :width]
    values.data.copy_(kept)
    return differ, largest, bool(spoiled_NTH.isfinite().all())


def _packed(module: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """Return what the base makes of records side by side in rows, none of which attends to another."""
    token_NT, width = torch.cat(list(parts), dim=1), parts[0].shape[1]
    part_T = torch.arange(token_NT.shape[1]) // width
    apart_TT = part_T[:, None] == part_T
    position_NT = (torch.arange(token_NT.shape[1]) % width).expand(token_NT.shape)
    attended = apart_TT[None, None].expand(len(token_NT), 1, -1, -1)
    with torch.no_grad():
        found: Tensor = module(input_ids=token_NT, attention_mask=attended, position_ids=position_NT).last_hidden_state
    return found


def table(lines: Iterable[Sequence[str]], *names: str) -> str:
    """Return a table in Markdown.

    >>> print(table([("1", "2")], "a", "b"))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    rows = [names, ["---"] * len(names), *lines]
    return "\n".join(f"| {' | '.join(row)} |" if row[0] != "---" else f"|{'|'.join(row)}|" for row in rows)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--lot", type=int, default=64)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--whole", type=int, nargs="+", default=[256, 512])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    count_N = counts(asked.folder)
    found = [(whole, *padding(count_N, whole, shorter(whole)), float((count_N > whole).mean())) for whole in WHOLE]
    lines = [(str(one), f"{pad:.2f}", f"{most:.2f}", f"{own:.2f}", f"{cut:.2f}") for one, pad, most, own, cut in found]
    print(table(lines, "length", "padding", "packing, at most", "three lengths", "cut off"))
    rows = [(width, *in_shared_rows(asked.folder, 64, width)) for width in (16, 13)]
    lines = [(str(one), f"{apart} of {3 * 64}", f"{by:.1e}", str(finite)) for one, apart, by, finite in rows]
    print(table(lines, "tokens of a record", "other bits", "at most", "numbers beside infinity"))
    steps = [(whole, *seconds(asked.folder, whole, asked.lot, asked.turns)) for whole in asked.whole]
    print(table([(str(one), f"{all_:.1f}", f"{part:.2f}") for one, all_, part in steps], "length", "seconds", "with"))


if __name__ == "__main__":
    main()
