"""A model with its first parameters (`fedmodel.kinds.models` has the kinds), and the losses that a scenario may name.

Every model treats each record of a batch by itself: no batch normalisation, no buffers. That is what makes a per-record
clip mean anything, and `fedmodel.learning.preflight` measures it before training rather than trusting this sentence.

A classifier of two classes has one output, a logit; of K > 2 classes, K logits. The sigmoid or softmax of the classic
network is part of its loss and of `probabilities`, where it is computed without overflow.

Shapes: B batch, K outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedmodel.config import ModelConfig, TrainingConfig
from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.vectors import parameter_count

Loss = Literal["cross-entropy", "mse"]
RecordLoss = Callable[[Any, Tensor], Tensor]
"""From what a model returns for B records, mostly outputs `(B, K)`, and their targets to each one's own loss, `(B,)`.
"""


def build_model(config: ModelConfig, shape: DataShape, seed: int) -> nn.Module:
    """Return a model with its initial parameters.

    Args:
        config: Architecture and initialisation. Where that is a file, parameters are random until it is put in.
        shape: A record's shape and the number of classes.
        seed: Decides random initial parameters, whatever the state of torch's global generator.

    Raises:
        ConfigError: When the architecture does not fit the records.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = config.build(shape)
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
    with outlined(config):
        return parameter_count(build_model(config, shape, seed=0))


def outlined(config: ModelConfig) -> AbstractContextManager[object]:
    """Return a context in which a model is built without memory for its parameters, if its kind can be."""
    return torch.device("meta") if config.without_memory else nullcontext()


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
