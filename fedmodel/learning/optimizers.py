"""The inner optimisers, and how their state crosses rounds when a scenario says that it may.

By default every round starts with a fresh optimiser. State that is kept is made of noised gradients alone, so keeping
it costs no privacy; a silo says when a round may begin from it.

Shapes: P parameters.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from numpy.typing import NDArray
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


def keep_state(optimizer: Optimizer, carried: dict[str, dict[str, NDArray[Any]]]) -> None:
    """Put the optimiser's tensors into what is carried on, in place of what was there."""
    carried[_STATE] = {
        f"{index}.{name}": value.detach().cpu().numpy()
        for index, held in optimizer.state_dict()["state"].items()
        for name, value in held.items()
        if isinstance(value, torch.Tensor)
    }


def recall_state(optimizer: Optimizer, carried: dict[str, dict[str, NDArray[Any]]]) -> None:
    """Give the optimiser the tensors of the last round, if there are any."""
    if _STATE not in carried:
        return
    restored = optimizer.state_dict()
    for key, array in carried[_STATE].items():
        index, name = key.split(".", maxsplit=1)
        restored["state"].setdefault(int(index), {})[name] = torch.from_numpy(array.copy())
    optimizer.load_state_dict(restored)
