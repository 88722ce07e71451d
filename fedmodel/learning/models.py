"""The models and losses that a scenario may name.

Every model treats each record of a batch by itself: no batch normalisation, no buffers. That is what makes a per-record
clip mean anything, and `fedmodel.learning.preflight` measures it before training rather than trusting this sentence.

A classifier of two classes has one output, a logit; of K > 2 classes, K logits. The sigmoid or softmax of the classic
network is part of its loss and of `probabilities`, where it is computed without overflow.

Shapes: B batch, F features of a record, K outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.config import CnnConfig, MlpConfig, ModelConfig, TrainingConfig
from fedmodel.data import DataShape
from fedmodel.errors import ConfigError, PrivacyError
from fedmodel.learning.vectors import parameter_count
from fedmodel.privacy.noise import NoiseSource

Loss = Literal["cross-entropy", "mse"]
RecordLoss = Callable[[Tensor, Tensor], Tensor]
"""From outputs `(B, K)` and labels `(B,)` to each record's own loss, `(B,)`."""


class Dropout(nn.Module):
    """Dropout whose masks come from a `NoiseSource`, as secret as the noise and independent for every record.

    torch's own takes its masks from a Mersenne Twister that a seed of 32 bits decides. Masks that can be guessed couple
    records, since adding one gives every later one another mask. A mask is drawn for each place of the batch, those
    that only fill it up included.

    Args:
        rate: Share of activations dropped.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.source: NoiseSource | None = None

    def forward(self, x_BF: Tensor) -> Tensor:
        """Drop and rescale in training; change nothing in evaluation.

        Raises:
            PrivacyError: When a training pass has no source to draw from.
        """
        if not self.training:
            return x_BF
        if self.source is None:
            raise PrivacyError("dropout was asked for masks without a source of them")
        kept = self.source.keep(x_BF.numel(), 1 - self.rate, x_BF.device).view(x_BF.shape)
        return x_BF * kept / (1 - self.rate)


def build_model(config: ModelConfig, shape: DataShape, seed: int) -> nn.Module:
    """Return a model with its initial parameters.

    Args:
        config: Architecture and initialisation. Where that is a file, parameters are random until it is put in.
        shape: A record's shape and the number of classes.
        seed: Decides random initial parameters, whatever the state of torch's global generator.

    Raises:
        ConfigError: When the architecture does not fit the records.
    """
    outputs = 1 if shape.classes == 2 else shape.classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        match config:
            case MlpConfig():
                module = _mlp(config, shape, outputs)
            case CnnConfig():
                module = _cnn(config, shape, outputs)
    if config.init in ("zero", "constant"):
        value = config.init_value if config.init_value is not None else 0.0
        for parameter in module.parameters():
            nn.init.constant_(parameter, value)
    return module


def parameters_of(config: ModelConfig, shape: DataShape) -> int:
    """Return how many trainable parameters a model has, without memory for them: it may be far too large.

    Raises:
        ConfigError: When the architecture does not fit the records.
    """
    with torch.device("meta"):
        return parameter_count(build_model(config, shape, seed=0))


def record_losses(loss: Loss, output_BK: Tensor, label_B: Tensor) -> Tensor:
    """Return each record's loss, from its own row alone.

    Args:
        loss: "cross-entropy" (binary or multi-class by K) or "mse" (against 0/1 or one-hot targets, summed over K).
        output_BK: Logits, shape `(B, K)`.
        label_B: int64 labels, shape `(B,)`.

    Returns:
        Shape `(B,)`.
    """
    if output_BK.shape[1] == 1:
        target_BK = label_B.to(output_BK.dtype)[:, None]
        if loss == "cross-entropy":
            return functional.binary_cross_entropy_with_logits(output_BK, target_BK, reduction="none")[:, 0]
    else:
        if loss == "cross-entropy":
            return functional.cross_entropy(output_BK, label_B, reduction="none")
        target_BK = functional.one_hot(label_B, output_BK.shape[1]).to(output_BK.dtype)
    return functional.mse_loss(output_BK, target_BK, reduction="none").sum(dim=1)


def training_losses(config: TrainingConfig, shape: DataShape, device: torch.device | None = None) -> RecordLoss:
    """Return the losses that silos train on: `record_losses`, weighed by class where the scenario says weights.

    Guarantee: a record's loss is that of its own row, times a public constant that its own label chooses. Nothing is
    divided by a sum of weights, as torch's `CrossEntropyLoss(weight=...)` does: that sum is of the lot, and would
    couple its records. Whoever clips each gradient of these losses bounds a record by the clip at any weights.

    Args:
        config: Its loss and class weights.
        shape: Says how many classes there are.
        device: Where outputs and labels are; the cpu by default.

    Raises:
        ConfigError: When there are not as many weights as classes.
    """
    unweighted = partial(record_losses, config.loss)
    if config.class_weights is None:
        return unweighted
    if len(config.class_weights) != shape.classes:
        raise ConfigError(
            f"training.class_weights has {len(config.class_weights)} weights, and the data has {shape.classes} classes;"
            " give one for each class, in the order of labels"
        )
    weight_K = torch.tensor(config.class_weights, dtype=torch.float32, device=device)
    return lambda output_BK, label_B: weighed(unweighted(output_BK, label_B), weight_K[label_B])


def weighed(loss_B: Tensor, weight_B: Tensor) -> Tensor:
    """Return each record's loss times its own weight."""
    return weight_B * loss_B


def loss_sum(loss: Loss, output_BK: Tensor, label_B: Tensor) -> Tensor:
    """Return the losses of a batch, added up and not weighed by class: a scalar, zero for an empty batch."""
    return record_losses(loss, output_BK, label_B).sum()


def probabilities(loss: Loss, output_BK: Tensor) -> Tensor:
    """Return each record's class scores, shape `(B, classes)`, each in [0, 1]; rows sum to 1 for cross-entropy."""
    if output_BK.shape[1] == 1:
        positive_B1 = torch.sigmoid(output_BK) if loss == "cross-entropy" else output_BK.clamp(0, 1)
        return torch.cat([1 - positive_B1, positive_B1], dim=1)
    return torch.softmax(output_BK, dim=1) if loss == "cross-entropy" else output_BK.clamp(0, 1)


def _mlp(config: MlpConfig, shape: DataShape, outputs: int) -> nn.Module:
    """Linear layers with an activation and dropout between them."""
    width = 1
    for extent in shape.features:
        width *= extent
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise((width, *config.hidden)):
        layers += [nn.Linear(before, after), _activation(config.activation)]
        if config.dropout:
            layers.append(Dropout(config.dropout))
    layers.append(nn.Linear((width, *config.hidden)[-1], outputs))
    return nn.Sequential(*layers)


def _cnn(config: CnnConfig, shape: DataShape, outputs: int) -> nn.Module:
    """Convolution, GroupNorm, activation and pooling per entry of `channels`, then one linear layer."""
    if len(shape.features) != 3:
        raise ConfigError(f'model.kind = "cnn" needs images; this source has records of shape {shape.features}')
    channels, height, width = shape.features
    if min(height, width) >> len(config.channels) == 0:
        raise ConfigError(
            f"{len(config.channels)} poolings leave nothing of {height}x{width} images; use fewer channels entries"
        )
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((channels, *config.channels)):
        layers += [
            nn.Conv2d(before, after, kernel_size=3, padding=1),
            nn.GroupNorm(config.groups, after),
            _activation(config.activation),
            nn.MaxPool2d(2),
        ]
        height, width = height // 2, width // 2
    layers.append(nn.Flatten())
    if config.dropout:
        layers.append(Dropout(config.dropout))
    layers.append(nn.Linear(config.channels[-1] * height * width, outputs))
    return nn.Sequential(*layers)


def _activation(name: Literal["relu", "tanh"]) -> nn.Module:
    return nn.ReLU() if name == "relu" else nn.Tanh()
