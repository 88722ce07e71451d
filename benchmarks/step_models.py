"""The models that `dp_sgd.py` takes steps of, each with a made-up lot. None has dropout or keeps anything.

Plain layers of torch, so that every library differentiates the same model: attention is four linear layers around
torch's own function, since `nn.MultiheadAttention` has weights that Opacus's hooks do not see. "adapters" is of the
shape of a real base, with random weights: MiniLM's six layers, frozen, with adapters of rank 8 on query and value.

Shapes: B batch, C channels, H heads, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.kinds.adapted import Adapted
from fedmodel.kinds.adapters import IN_NAMES, Lora, with_lora

_CLASSES: Final = 10
_TOKENS, _WORDS, _WIDTH, _HEADS, _LAYERS = 64, 3_000, 256, 4, 4
_BASE_WORDS: Final = 30_522


@dataclass(frozen=True)
class Trial:
    """A model and records that it takes.

    Attributes:
        build: Makes the model, the same one each time.
        records: Makes so many records and their targets.
        steps: Steps in one turn of a measurement, so that a turn is long beside what a clock resolves.
        tokens: T of a record that is a text, 0 of one that is none.
    """

    build: Callable[[], nn.Module]
    records: Callable[[int], tuple[Tensor, Tensor]]
    steps: int
    tokens: int = 0


def losses(output_BK: Tensor, target_B: Tensor) -> Tensor:
    """Return each record's own cross-entropy."""
    return functional.cross_entropy(output_BK, target_B, reduction="none")


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))


def _cnn() -> nn.Module:
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1_024, 95), nn.ReLU(), nn.Linear(95, _CLASSES))


class _Block(nn.Module):
    """A basic block (He et al. 2016), with GroupNorm for batch normalisation, which would couple records."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, after), nn.GroupNorm(8, after)])
        self.short = nn.Identity() if before == after else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner_BCHW = functional.relu(self.norms[0](self.first(x_BCHW)))
        return functional.relu(self.norms[1](self.second(inner_BCHW)) + self.short(x_BCHW))


def _resnet() -> nn.Module:
    widths = (32, 32, 64, 128, 256)
    blocks: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        blocks += [_Block(before, after, 1 if number == 0 else 2), _Block(after, after, 1)]
    stem = [nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.GroupNorm(8, 32), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, _CLASSES))


class _Layer(nn.Module):
    """A layer of a transformer encoder that normalises first (Xiong et al. 2020, figure 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(_WIDTH), nn.LayerNorm(_WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(_WIDTH, _WIDTH) for _ in range(4))
        self.inner, self.outer = nn.Linear(_WIDTH, 4 * _WIDTH), nn.Linear(4 * _WIDTH, _WIDTH)

    def forward(self, x_BTD: Tensor) -> Tensor:
        normed_BTD = self.before(x_BTD)

        def heads(layer: nn.Module) -> Tensor:
            return layer(normed_BTD).unflatten(2, (_HEADS, -1)).transpose(1, 2)

        mixed_BHTD = functional.scaled_dot_product_attention(heads(self.query), heads(self.key), heads(self.value))
        x_BTD = x_BTD + self.out(mixed_BHTD.transpose(1, 2).flatten(2))
        return x_BTD + self.outer(functional.gelu(self.inner(self.between(x_BTD))))


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(_WORDS, _WIDTH), nn.Embedding(_TOKENS, _WIDTH)
        self.layers = nn.Sequential(*(_Layer() for _ in range(_LAYERS)))
        self.last, self.head = nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _CLASSES)

    def forward(self, word_BT: Tensor) -> Tensor:
        # A row of places for each record, whole in memory: hooks see as many rows as of words, and Opacus asks for it.
        place_BT = torch.arange(_TOKENS, device=word_BT.device).repeat(len(word_BT), 1)
        x_BTD = self.layers(self.words(word_BT) + self.places(place_BT))
        return self.head(self.last(x_BTD).mean(dim=1))


class _Tokens(nn.Module):
    """A model of texts that is given tokens alone, with a mask where all stand, as a run gives them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, word_BT: Tensor) -> Tensor:
        return self.inner(tokens=word_BT, mask=torch.ones_like(word_BT))


def _adapters() -> nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    width = BertConfig(
        vocab_size=_BASE_WORDS, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1_536,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, num_labels=_CLASSES,
    )  # fmt: skip
    base = with_lora(BertForSequenceClassification(width), Lora(("query", "value"), 8, 16.0, 0.0))
    for name, one in base.named_parameters():
        one.requires_grad_(IN_NAMES in name or name.startswith("classifier."))
    return _Tokens(Adapted(base, None, "tokens", "mask", _CLASSES, causal=False))


def _numbers(*size: int, classes: int = _CLASSES) -> Callable[[int], tuple[Tensor, Tensor]]:
    return lambda count: (torch.randn(count, *size), torch.randint(classes, (count,)))


TRIALS: Final[dict[str, Trial]] = {
    "mlp": Trial(_mlp, _numbers(10, classes=2), 50),
    "cnn": Trial(_cnn, _numbers(3, 32, 32), 3),
    "resnet": Trial(_resnet, _numbers(3, 32, 32), 1),
    "transformer": Trial(
        _Transformer,
        lambda count: (torch.randint(_WORDS, (count, _TOKENS)), torch.randint(_CLASSES, (count,))),
        1,
        _TOKENS,
    ),
    "adapters": Trial(
        _adapters,
        lambda count: (torch.randint(_BASE_WORDS, (count, _TOKENS)), torch.randint(_CLASSES, (count,))),
        1,
        _TOKENS,
    ),
}
