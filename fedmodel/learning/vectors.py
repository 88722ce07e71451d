"""A model's parameters as one flat float32 vector, and back.

Flower moves every array as its own object with its own calls, so a model crosses the wire as a single vector. The order
is that of `module.parameters()`, which both sides derive from the same scenario.

Shapes: P is the number of trainable parameters.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmodel.errors import ProtocolError


def parameter_count(module: nn.Module) -> int:
    """Return P, the number of trainable parameters."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def shapes(module: nn.Module) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of the trainable parameters, in their order."""
    return tuple(tuple(parameter.shape) for parameter in module.parameters() if parameter.requires_grad)


def flatten(module: nn.Module) -> NDArray[np.float32]:
    """Return the trainable parameters as a new vector of shape `(P,)`."""
    parts = [p.detach().reshape(-1).cpu() for p in module.parameters() if p.requires_grad]
    vector_P: NDArray[np.float32] = torch.cat(parts).to(torch.float32).numpy().copy()
    return vector_P


def load(module: nn.Module, vector_P: NDArray[np.float32]) -> None:
    """Write a vector of shape `(P,)` into the trainable parameters.

    Raises:
        ProtocolError: When the length differs or an entry is not finite; the module is then unchanged.
    """
    expected = parameter_count(module)
    if vector_P.shape != (expected,):
        raise ProtocolError(f"a vector of shape {vector_P.shape} does not fit a model of {expected} parameters")
    if not np.isfinite(vector_P).all():
        raise ProtocolError("a model or an update holds NaN or infinity; it is not used")
    put(module, torch.from_numpy(np.array(vector_P, dtype=np.float32, copy=True)))


def put(module: nn.Module, source_P: Tensor) -> None:
    """Write a vector that is known to fit into the trainable parameters, whatever its values."""
    offset = 0
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                size = parameter.numel()
                parameter.copy_(source_P[offset : offset + size].view_as(parameter))
                offset += size
