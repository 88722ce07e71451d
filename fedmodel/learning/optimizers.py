"""The inner optimisers, and how their state crosses rounds when a scenario says that it may.

By default every round starts with a fresh optimiser. State that is kept is made of noised gradients alone, so keeping
it costs no privacy; `clients.carried` says when a round may begin from it.

Shapes: P parameters.
"""

from __future__ import annotations

from typing import Final

import torch
from flwr.app import Array, ArrayRecord, RecordDict
from torch import nn
from torch.optim import Optimizer

from fedmodel.config import TrainingConfig

_STATE: Final = "fedmodel.optimizer"


def build_optimizer(config: TrainingConfig, module: nn.Module) -> Optimizer:
    """Return a fresh optimiser over the module's trainable parameters."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    match config.optimizer:
        case "sgd":
            return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=config.momentum)
        case "adam":
            return torch.optim.Adam(parameters, lr=config.learning_rate)
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr=config.learning_rate)


def keep_state(optimizer: Optimizer, state: RecordDict) -> None:
    """Put the optimiser's tensors into a state, in place of what was there."""
    tensors = {
        f"{index}.{name}": Array(value.detach().cpu().numpy())
        for index, held in optimizer.state_dict()["state"].items()
        for name, value in held.items()
        if isinstance(value, torch.Tensor)
    }
    state[_STATE] = ArrayRecord(tensors)


def recall_state(optimizer: Optimizer, state: RecordDict) -> None:
    """Give the optimiser the tensors of the last round, if there are any."""
    record = state.get(_STATE)
    if not isinstance(record, ArrayRecord):
        return
    restored = optimizer.state_dict()
    for key, array in record.items():
        index, name = key.split(".", maxsplit=1)
        restored["state"].setdefault(int(index), {})[name] = torch.from_numpy(array.numpy().copy())
    optimizer.load_state_dict(restored)
