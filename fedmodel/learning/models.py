"""A model with its first parameters (`fedmodel.kinds.models` has the kinds), and the losses that silos train on.

Every model treats each record of a batch by itself, and keeps nothing of one. That is what makes a per-record clip mean
anything, and `fedmodel.learning.refusals` and `.preflight` measure it before training and trust no sentence.

Which losses there are, and what outputs mean, is a task's to say (`fedmodel.learning.tasks`).

Shapes: B batch, K outputs.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fedmodel.config import ModelConfig, TrainingConfig
from fedmodel.errors import ConfigError
from fedmodel.kinds.shape import DataShape
from fedmodel.learning.tasks import RecordLoss, objective
from fedmodel.learning.vectors import shapes


def build_model(config: ModelConfig, shape: DataShape, seed: int) -> nn.Module:
    """Return a model with its initial parameters.

    Args:
        config: Architecture and initialisation. Where that is a file, parameters are random until it is put in.
        shape: A record's shape and the number of classes.
        seed: Decides random initial parameters, whatever the state of torch's global generator.

    Raises:
        ConfigError: When the architecture does not fit the records, or waits for records to say sizes.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = config.build(shape)
    lazy = [name for name, one in [*module.named_parameters(), *module.named_buffers()] if is_lazy(one)]
    if lazy:
        raise ConfigError(f"the model's {lazy[0]!r} has no shape before the first records; say its layer's sizes")
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
    return sum(map(math.prod, parameter_shapes(config, shape)))


def parameter_shapes(config: ModelConfig, shape: DataShape) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a model's trainable parameters, in their order, likewise.

    Raises:
        ConfigError: When the architecture does not fit the records.
    """
    with outlined(config):
        return shapes(build_model(config, shape, seed=0))


def outlined(config: ModelConfig) -> AbstractContextManager[object]:
    """Return a context in which a model is built without memory for its parameters, if its kind can be."""
    return torch.device("meta") if config.without_memory else nullcontext()


def training_losses(config: TrainingConfig, shape: DataShape, device: torch.device | None = None) -> RecordLoss:
    """Return the losses that silos train on: the task's, weighed by class where the scenario says weights.

    Guarantee: a record's loss is that of its own row, times a public constant that its own label chooses. Nothing is
    divided by a sum of weights, as torch's `CrossEntropyLoss(weight=...)` does: that sum is of the lot, and would
    couple its records. Whoever clips each gradient of these losses bounds a record by the clip at any weights.

    Args:
        config: Its loss and class weights.
        shape: Says which task there is, and how many classes.
        device: Where outputs and labels are; the cpu by default.

    Raises:
        ConfigError: When the task has no such loss, or there are not as many weights as classes.
    """
    found = objective(shape, config.loss)
    unweighted = found.losses
    if config.class_weights is None:
        return unweighted
    if not found.task.reads_labels:
        raise ConfigError(
            f"training.class_weights weigh a record by its one label, and the task is {shape.task}; leave them out"
        )
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
